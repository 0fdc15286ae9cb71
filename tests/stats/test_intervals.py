from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from holdfast.core.errors import Defect
from holdfast.stats.intervals import (
    clopper_pearson,
    design_effect,
    group_freedom,
    wilson,
    wilson_by_groups,
)

CASES = [(0, 1), (1, 1), (0, 30), (1, 30), (15, 30), (29, 30), (30, 30), (731, 1000)]


@pytest.mark.parametrize(("successes", "n"), CASES)
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_is_scipys(successes: int, n: int, level: float) -> None:
    oracle = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    assert wilson(successes, n, level) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), CASES)
def test_clopper_pearson_is_scipys(successes: int, n: int) -> None:
    oracle = stats.binomtest(successes, n).proportion_ci(0.95, method="exact")
    assert clopper_pearson(successes, n) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


@pytest.mark.parametrize("interval", [wilson, clopper_pearson])
def test_no_rows_say_nothing(interval: object) -> None:
    assert interval(0, 0) == (0.0, 1.0)  # type: ignore[operator]


def test_an_impossible_rate_is_refused() -> None:
    with pytest.raises(Defect, match="0 ≤ successes ≤ n"):
        wilson(3, 2)


def test_a_wider_level_contains_a_narrower_one() -> None:
    low, high = wilson(7, 30, 0.8)
    wider_low, wider_high = wilson(7, 30, 0.99)
    assert wider_low < low < 7 / 30 < high < wider_high


def test_exact_interval_covers_at_least_its_level_for_every_rate() -> None:
    n = 30
    intervals = np.array([clopper_pearson(k, n) for k in range(n + 1)])
    for rate in np.linspace(0.01, 0.99, 99):
        inside = (intervals[:, 0] <= rate) & (rate <= intervals[:, 1])
        assert stats.binom.pmf(np.arange(n + 1), n, rate)[inside].sum() >= 0.95


def test_mean_coverage_of_wilson_is_its_level() -> None:
    """Exact, by summing the binomial law; no simulation."""
    n, rates = 30, np.linspace(0.02, 0.98, 97)
    intervals = np.array([wilson(k, n) for k in range(n + 1)])
    inside = (intervals[:, :1] <= rates) & (rates <= intervals[:, 1:])
    law = stats.binom.pmf(np.arange(n + 1)[:, None], n, rates)
    assert 0.945 < (law * inside).sum(axis=0).mean() < 0.965


def test_groups_of_one_row_have_no_design_effect_to_speak_of() -> None:
    hits = np.random.default_rng(0).random(400) < 0.7
    assert design_effect(hits, np.arange(400)) == pytest.approx(1.0, abs=0.01)


def test_copies_inside_groups_multiply_the_variance_by_their_number() -> None:
    hits = np.repeat(np.random.default_rng(0).random(200) < 0.7, 5)
    groups = np.repeat(np.arange(200), 5)
    assert design_effect(hits, groups) == pytest.approx(5.0, rel=0.02)


def test_all_right_in_groups_counts_groups_not_rows() -> None:
    groups = np.repeat(np.arange(20), 5)
    low, high = wilson_by_groups(np.ones(100, dtype=bool), groups)
    assert high == 1.0
    assert low < wilson(20, 20)[0] < wilson(100, 100)[0]


def test_one_group_gives_no_interval() -> None:
    assert np.isnan(wilson_by_groups(np.array([True, False]), np.zeros(2, dtype=int))).all()


def test_grouped_interval_covers_where_plain_wilson_does_not() -> None:
    rng = np.random.default_rng(1)
    groups, plain, grouped, runs = np.repeat(np.arange(40), 5), 0, 0, 600
    for _ in range(runs):
        rates = rng.beta(2, 1, 40)
        hits = rng.random(200) < np.repeat(rates, 5)
        low, high = wilson(int(hits.sum()), 200)
        plain += low <= 2 / 3 <= high
        low, high = wilson_by_groups(hits, groups)
        grouped += low <= 2 / 3 <= high
    assert plain / runs < 0.90
    assert 0.93 < grouped / runs < 0.985


def test_groups_of_one_size_have_one_degree_of_freedom_less_and_unequal_ones_fewer() -> None:
    assert group_freedom([7] * 12) == pytest.approx(11)
    assert group_freedom([1, 1]) == 1
    # One large group and many tiny ones are little more than one group.
    assert group_freedom([1000, *[1] * 20]) == 1
    assert 5 < group_freedom([10, 20, 30, 10, 20, 30, 10, 20]) < 7


def test_few_groups_of_very_different_size_cover_the_rate() -> None:
    """Six groups, log-normal sizes with sigma 1, and a correlation of about 0.1 within a group:
    with five degrees of freedom 88 % of intervals cover it, with those of the sizes 96 %."""
    rng, covered, samples = np.random.default_rng(0), 0, 400
    truth = stats.norm.cdf(1 / np.sqrt(1 + 0.48**2))
    for _ in range(samples):
        sizes = np.maximum(1, rng.lognormal(np.log(30), 1.0, 6)).astype(int)
        groups = np.repeat(np.arange(6), sizes)
        margins = 1 + 0.48 * rng.standard_normal(6)[groups] + rng.standard_normal(len(groups))
        low, high = wilson_by_groups(margins > 0, groups)
        covered += low <= truth <= high
    assert covered / samples >= 0.93
