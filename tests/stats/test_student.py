from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from holdfast.stats.student import paired_t, welch


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
