"""Whether some rows are above the others, against SciPy and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from holdfast.stats.two_samples import excess, excess_p_values, holm, rows_for_excess, weighted_holm


def _seed(name: int = 0) -> np.random.Generator:
    return np.random.default_rng(name)


def test_of_right_and_wrong_it_is_fishers_exact_test() -> None:
    rng = _seed()
    wrong = (rng.random(90) < 0.2).astype(float)
    chosen = rng.random((30, 90)) < rng.random((30, 1))
    chosen[0], chosen[1] = False, True
    ours = excess_p_values(wrong, chosen, seed=rng)
    for mask, p in zip(chosen, ours, strict=True):
        inside, outside = wrong[mask], wrong[~mask]
        table = [[inside.sum(), (1 - inside).sum()], [outside.sum(), (1 - outside).sum()]]
        assert p == pytest.approx(stats.fisher_exact(table, "greater").pvalue, rel=1e-9)


def test_of_numbers_it_is_the_permutation_test() -> None:
    rng = _seed(1)
    values = rng.exponential(size=60)
    mask = np.arange(60) < 15
    values[mask] += 0.35
    ours = excess_p_values(values, mask[None], seed=rng)[0]

    def gap(one: np.ndarray, other: np.ndarray, axis: int = -1) -> np.ndarray:
        return one.mean(axis=axis) - other.mean(axis=axis)

    theirs = stats.permutation_test(
        (values[mask], values[~mask]),
        gap,
        n_resamples=9999,
        alternative="greater",
        rng=_seed(2),
        vectorized=True,
    )
    assert ours == pytest.approx(theirs.pvalue, abs=0.012)
    assert excess(values, mask[None])[0] == pytest.approx(theirs.statistic)


def test_equal_numbers_prove_nothing() -> None:
    mask = np.arange(40) < 9
    assert excess_p_values(np.full(40, 0.3), mask[None], seed=_seed())[0] == 1.0


def test_rows_of_a_group_are_not_taken_for_independent_ones() -> None:
    """Groups are wrong as a whole, at random: the exact test on rows cries wolf, ours does not."""
    rng, naive, ours = _seed(3), 0, 0
    groups = np.repeat(np.arange(40), 10)
    for _ in range(400):
        wrong = np.repeat((rng.random(40) < 0.2).astype(float), 10)
        mask = np.isin(groups, rng.choice(40, 8, replace=False))
        naive += excess_p_values(wrong, mask[None], seed=rng)[0] <= 0.05
        ours += excess_p_values(wrong, mask[None], seed=rng, groups=groups)[0] <= 0.05
    assert naive / 400 > 0.2
    assert ours / 400 < 0.075


def test_with_groups_of_one_row_it_is_never_less_strict_than_without() -> None:
    rng = _seed(4)
    wrong = (rng.random(80) < 0.3).astype(float)
    chosen = rng.random((20, 80)) < 0.3
    alone = excess_p_values(wrong, chosen, seed=rng)
    assert (excess_p_values(wrong, chosen, seed=rng, groups=np.arange(80)) >= alone).all()


def test_as_many_rows_as_it_says_settle_it_eight_times_in_ten() -> None:
    rng = _seed(5)
    seen = np.concatenate([np.arange(40) < 12, np.arange(160) < 24]).astype(float)
    mask = np.arange(200) < 40
    n = rows_for_excess(seen, mask, alpha=0.01)
    assert n is not None
    inside = round(n * 0.2)
    new = np.arange(n) < inside
    hits = 0
    for _ in range(400):
        wrong = (rng.random(n) < np.where(new, 0.3, 0.15)).astype(float)
        hits += excess_p_values(wrong, new[None], seed=rng)[0] <= 0.01
    assert 0.7 < hits / 400 < 0.88


def test_no_rows_settle_what_is_not_there() -> None:
    wrong = np.concatenate([np.zeros(20), np.ones(10), np.zeros(30)])
    assert rows_for_excess(wrong, np.arange(60) < 20, alpha=0.05) is None
    assert rows_for_excess(wrong, np.arange(60) < 1, alpha=0.05) is None


def test_weighted_holm_is_holm_with_equal_weights_and_keeps_its_level_with_others() -> None:
    rng = _seed(6)
    p = rng.random(12) ** 3
    np.testing.assert_allclose(weighted_holm(p, np.full(12, 7.0)), holm(p))
    weights, alarms = 1 / np.arange(1, 11), 0
    for _ in range(2000):
        alarms += weighted_holm(rng.random(10), weights).min() <= 0.05
    assert alarms / 2000 < 0.065


def test_more_weight_finds_with_less() -> None:
    p = np.array([0.01, 0.01, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    found = weighted_holm(p, np.array([8.0, 1, 1, 1, 1, 1, 1, 1]))
    assert found[0] == pytest.approx(0.01 * 15 / 8)
    assert found[1] > 0.05
