from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from holdfast.stats.ranks import average_ranks, signed_rank

NOTHING = np.zeros(0)


def _walsh(gap: np.ndarray) -> np.ndarray:
    pairs = itertools.combinations_with_replacement(gap, 2)
    return np.sort([(a + b) / 2 for a, b in pairs])


def test_the_p_value_is_the_share_of_all_signs_at_least_as_far_from_even() -> None:
    gap = np.random.default_rng(0).normal(0.4, 1, size=9)
    ranks = stats.rankdata(np.abs(gap))
    sums = [np.dot(ranks, signs) for signs in itertools.product([0, 1], repeat=9)]
    seen, middle = ranks[gap > 0].sum(), ranks.sum() / 2
    expected = np.mean(np.abs(np.array(sums) - middle) >= abs(seen - middle))
    assert signed_rank(gap, np.zeros(9)).p_value == pytest.approx(expected)


def test_the_shift_is_the_median_of_walsh_averages() -> None:
    for n in (1, 2, 7, 30):
        gap = np.random.default_rng(n).exponential(size=n)
        assert signed_rank(gap, np.zeros(n)).value == pytest.approx(np.median(_walsh(gap)))


@pytest.mark.parametrize("n", [12, 60])
def test_the_interval_holds_exactly_the_shifts_that_the_test_does_not_refuse(n: int) -> None:
    gap = np.random.default_rng(n).normal(0.3, 1, size=n)
    result = signed_rank(gap, np.zeros(n))
    inside, outside = 1e-6, -1e-6
    for limit, side in ((result.low, 1), (result.high, -1)):
        assert signed_rank(gap, np.full(n, limit + side * inside)).p_value > 0.05
        assert signed_rank(gap, np.full(n, limit + side * outside)).p_value < 0.052


def test_the_interval_covers_by_simulation() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(150):
        result = signed_rank(rng.standard_t(3, size=25) + 0.2, np.zeros(25))
        held += result.low <= 0.2 <= result.high
    assert 0.92 <= held / 150 <= 0.99


def test_zeros_are_ranked_and_then_left_out() -> None:
    gap = np.array([0, 0, 0.5, 1.5, 2.5, -1.0, 3.0, 2.0])
    oracle = stats.wilcoxon(gap, zero_method="pratt", method="approx").pvalue
    assert signed_rank(gap, np.zeros(8)).p_value == pytest.approx(oracle)


def test_one_huge_row_decides_a_mean_but_no_rank() -> None:
    gap = np.random.default_rng(0).normal(0.5, 1, size=40)
    wild = np.append(gap, -1000.0)
    assert signed_rank(wild, np.zeros(41)).value == pytest.approx(
        signed_rank(gap, np.zeros(40)).value, abs=0.15
    )


def test_exchanging_the_two_turns_the_shift() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.random(33), rng.random(33)
    one, other = signed_rank(first, second), signed_rank(second, first)
    assert (other.value, other.low) == pytest.approx((-one.value, -one.high))
    assert other.p_value == pytest.approx(one.p_value)


def test_little_and_nothing() -> None:
    assert np.isnan(signed_rank(NOTHING, NOTHING).p_value)
    assert np.isnan(signed_rank(np.array([np.inf, 1.0]), np.zeros(2)).value)
    same = signed_rank(np.ones(9), np.ones(9))
    assert (same.value, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)
    five = signed_rank(np.arange(1.0, 6), np.zeros(5))
    assert (five.low, five.high) == (-np.inf, np.inf)
    assert five.p_value == pytest.approx(2 / 32)


def test_equal_values_share_their_mean_rank() -> None:
    for seed in range(20):
        values = np.random.default_rng(seed).integers(0, 12, size=30) / 7
        np.testing.assert_array_equal(average_ranks(values), stats.rankdata(values))
    assert average_ranks(NOTHING).size == 0
