from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from holdfast.core.errors import Defect
from holdfast.stats.folds import corrected_t, nested

N, TRAIN = 60, 54


def _gaps(rng: np.random.Generator, divisions: int = 15) -> np.ndarray:
    """Squared loss of a mean learned from 54 rows less that of knowing it is 0, on the other 6,
    over random divisions of 60 rows. The expectation is 1 ÷ 54."""
    rows = rng.normal(size=N)
    order = np.argsort(rng.random((divisions, N)), axis=1)
    train, test = rows[order[:, :TRAIN]], rows[order[:, TRAIN:]]
    learned = train.mean(axis=1, keepdims=True)
    return np.asarray(((test - learned) ** 2 - test**2).mean(axis=1))


def test_it_covers_where_a_plain_t_interval_does_not() -> None:
    rng, runs, held, plain = np.random.default_rng(0), 400, 0, 0
    for _ in range(runs):
        gaps = _gaps(rng)
        result = corrected_t(gaps, TRAIN, N - TRAIN)
        held += result.low <= 1 / TRAIN <= result.high
        p_value = stats.ttest_1samp(gaps, 1 / TRAIN).pvalue
        plain += p_value >= 0.05
    assert held / runs >= 0.9
    assert plain / runs < held / runs - 0.05


def test_without_test_rows_it_tends_to_the_plain_t_interval() -> None:
    gaps = np.random.default_rng(1).normal(0.3, 1, size=10)
    oracle = stats.ttest_1samp(gaps, 0)
    result = corrected_t(gaps, 1e12, 1)
    assert result.p_value == pytest.approx(oracle.pvalue)
    assert (result.low, result.high) == pytest.approx(tuple(oracle.confidence_interval()))


def test_larger_test_shares_widen_it() -> None:
    gaps = np.random.default_rng(1).normal(size=10)
    widths = [(r := corrected_t(gaps, 100, m)).high - r.low for m in (1, 10, 50)]
    assert widths == sorted(widths)


def test_little_and_nothing() -> None:
    assert np.isnan(corrected_t(np.array([0.1]), 9, 1).low)
    assert np.isnan(corrected_t(np.array([]), 9, 1).value)
    assert np.isnan(corrected_t(np.array([0.1, np.nan]), 9, 1).p_value)
    equal = corrected_t(np.array([0.1 + 0.2, 0.3, 0.3]), 9, 1)
    assert np.isnan([equal.low, equal.high, equal.p_value]).all()
    with pytest.raises(Defect, match="positive"):
        corrected_t(np.zeros(3), 0, 1)


def test_nested_folds_give_what_the_algorithm_says_in_loops() -> None:
    """2104.00673, algorithm 1, row by row, with a learner that is its training rows' mean."""
    rng, k = np.random.default_rng(3), 4
    rows = rng.normal(size=24) + 1
    dealt = np.arange(24) % k
    outer, inner, a, b, every = [], [], [], [], []
    for i in range(k):
        within = []
        for j in range(k):
            if j != i:
                learned = rows[(dealt != i) & (dealt != j)].mean()
                within += [(row - learned) ** 2 for row in rows[dealt == j]]
        learned = rows[dealt != i].mean()
        out = [(row - learned) ** 2 for row in rows[dealt == i]]
        a.append((sum(within) / len(within) - sum(out) / len(out)) ** 2)
        b.append(stats.sem(out) ** 2)
        every += within
        outer.append(np.array(out))
        inner.append(np.array(within))
    found = nested(outer, inner, k)
    plain = np.concatenate(outer).mean()
    naive = stats.sem(np.concatenate(outer)) ** 2
    mse = min(max(np.mean(a) - np.mean(b), naive), k * naive)
    value = np.mean(every) - (1 + (k - 2) / k) * (np.mean(every) - plain)
    assert found.plain == pytest.approx(plain)
    assert found.value == pytest.approx(value)
    half = stats.norm.ppf(0.975) * np.sqrt((k - 1) / k * mse)
    assert (found.low, found.high) == pytest.approx((value - half, value + half))
    with pytest.raises(Defect):
        nested(outer, inner[:-1], k)
