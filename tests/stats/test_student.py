from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from holdfast.stats.paired_tests import by_groups, paired_t, welch


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
def test_a_paired_interval_is_scipys(level: float) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.gamma(1, 1, 60), rng.gamma(1, 1, 60)
    own, other = paired_t(first, second, level), stats.ttest_rel(first, second)
    limits = other.confidence_interval(level)
    assert (own.low, own.high) == pytest.approx((limits.low, limits.high))
    above = stats.ttest_rel(first, second, alternative="greater").pvalue
    assert own.above == pytest.approx(1 - above)


@pytest.mark.parametrize("sizes", [(60, 60), (500, 40), (2, 3)])
def test_welchs_interval_is_scipys(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    first, second = rng.gamma(1, 1, sizes[0]), rng.gamma(2, 1, sizes[1])
    own, other = welch(first, second), stats.ttest_ind(first, second, equal_var=False)
    limits = other.confidence_interval(0.95)
    assert (own.low, own.high) == pytest.approx((limits.low, limits.high))
    greater = stats.ttest_ind(first, second, equal_var=False, alternative="greater").pvalue
    assert own.above == pytest.approx(1 - greater)


@pytest.mark.parametrize("test", [paired_t, welch])
@pytest.mark.parametrize("broken", [np.array([]), np.array([np.nan, 1.0]), np.array([np.inf, 1])])
def test_nothing_and_what_is_no_number_give_nan(test, broken) -> None:
    found = test(broken, np.ones(len(broken)))
    assert np.isnan([found.value, found.low, found.high, found.above]).all()


@pytest.mark.parametrize("test", [paired_t, welch])
def test_one_row_has_a_difference_and_no_interval(test) -> None:
    found = test(np.array([3.0]), np.array([1.0]))
    assert found.value == 2
    assert np.isnan(found.low)


@pytest.mark.parametrize("test", [paired_t, welch])
def test_rows_that_are_all_alike_give_an_interval_without_width(test) -> None:
    found = test(np.full(9, 2.0), np.full(9, 1.5))
    assert (found.value, found.low, found.high, found.above) == (0.5, 0.5, 0.5, 1.0)


def test_groups_of_one_size_are_a_t_test_of_their_means() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(15, 8)) + rng.normal(size=(15, 1)), rng.normal(size=(15, 8))
    order = rng.permutation(120)
    groups = np.repeat(np.arange(15), 8)[order]
    own = paired_t(first.ravel()[order], second.ravel()[order], groups=groups)
    other = stats.ttest_rel(first.mean(axis=1), second.mean(axis=1))
    limits = other.confidence_interval(0.95)
    assert (own.low, own.high) == pytest.approx((limits.low, limits.high))
    assert own.n == 15


def test_groups_of_unlike_sizes_have_the_error_of_a_ratio_of_sums() -> None:
    """Beside leaving out one group at a time (the jackknife)."""
    rng = np.random.default_rng(3)
    groups = np.sort(rng.integers(0, 60, 300))
    rows = rng.normal(size=60)[groups] + rng.normal(size=300)
    found = by_groups(rows, groups)
    count = len(found)
    assert found.mean() == pytest.approx(rows.mean())
    left = np.array([rows[groups != one].mean() for one in np.unique(groups)])
    jackknife = np.sqrt((count - 1) / count * ((left - left.mean()) ** 2).sum())
    assert found.std(ddof=1) / np.sqrt(count) == pytest.approx(jackknife, rel=0.05)
    assert np.sort(by_groups(rows, rng.permutation(300))) == pytest.approx(np.sort(rows))
