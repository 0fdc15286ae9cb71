from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from holdfast.core.errors import Defect
from holdfast.stats.streams.rates import rate_evidence, rate_limits


@pytest.mark.parametrize(("hits", "rows", "rate"), [(0, 0, 0.3), (7, 10, 0.5), (2, 200, 0.05)])
def test_it_is_the_mean_likelihood_ratio_over_rates_of_the_prior(
    hits: int, rows: int, rate: float
) -> None:
    def ratio(q: float) -> float:
        likelihood = stats.binom.pmf(hits, rows, q) / stats.binom.pmf(hits, rows, rate)
        return float(likelihood * stats.beta.pdf(q, 5, 3))

    found = rate_evidence(np.array([hits]), np.array([rows]), rate, (5, 3))[0]
    assert math.exp(found) == pytest.approx(integrate.quad(ratio, 0, 1)[0], rel=1e-6)


def test_the_true_rate_gives_one_on_average_at_every_number_of_rows() -> None:
    for rows, rate in ((1, 0.2), (30, 0.2), (30, 0.01)):
        hits = np.arange(rows + 1)
        e = np.exp(rate_evidence(hits, np.full(rows + 1, rows), rate))
        assert float(stats.binom.pmf(hits, rows, rate) @ e) == pytest.approx(1)


def test_limits_are_where_the_evidence_reaches_its_need() -> None:
    low, high = rate_limits(30, 300, 0.05)
    assert low < 0.1 < high
    for edge in (low, high):
        found = rate_evidence(np.array(30), np.array(300), edge)
        assert float(found) == pytest.approx(math.log(20), abs=1e-6)
    # They are wider than those of one look, and not by much.
    once = stats.binomtest(30, 300).proportion_ci(0.95, "wilson")
    assert low < once.low
    assert high > once.high
    assert high - low < 1.8 * (once.high - once.low)


def test_limits_at_the_ends_and_without_rows() -> None:
    assert rate_limits(0, 0) == (0.0, 1.0)
    low, high = rate_limits(0, 50)
    assert low == 0
    assert 0.05 < high < 0.2
    low, high = rate_limits(50, 50)
    assert high == 1
    assert 0.8 < low < 0.95


def test_limits_hold_the_rate_at_all_looks_at_once() -> None:
    rng, missed = np.random.default_rng(5), 0
    need, rows = math.log(20), np.arange(1, 1001)
    for _ in range(400):
        hits = np.cumsum(rng.random(1000) < 0.1)
        missed += bool((rate_evidence(hits, rows, 0.1) >= need).any())
    # Nominal: at most 20 of 400.
    assert missed <= 20


def test_what_is_no_rate_is_refused() -> None:
    with pytest.raises(Defect):
        rate_evidence(np.array([1]), np.array([2]), 1.5)
    with pytest.raises(Defect):
        rate_limits(3, 2)
    with pytest.raises(Defect):
        rate_limits(1, 2, 0)
