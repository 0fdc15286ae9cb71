from __future__ import annotations

import itertools

import numpy as np
import pytest

from holdfast.stats.trend import trend


def test_the_slope_is_the_median_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    x, y = np.sort(rng.random(9)), rng.random(9)
    slopes = [(y[j] - y[i]) / (x[j] - x[i]) for i, j in itertools.combinations(range(9), 2)]
    assert trend(x, y).slope == pytest.approx(np.median(slopes))


def test_the_p_value_is_exact_by_enumeration() -> None:
    """Five rising points of a series with one swap: the share of all 120 orders at least as far
    from even."""
    y = np.array([1.0, 2, 3, 5, 4])

    def score(values: np.ndarray) -> float:
        return sum(np.sign(b - a) for a, b in itertools.combinations(values, 2))

    every = [abs(score(np.array(order))) for order in itertools.permutations(y)]
    expected = np.mean(np.array(every) >= abs(score(y)))
    assert trend(np.arange(5.0), y).p_value == pytest.approx(expected)


@pytest.mark.parametrize("y", [[1.0], [1.0, 2.0], [1.0, np.nan, 2.0]])
def test_fewer_than_three_points_claim_nothing(y: list[float]) -> None:
    result = trend(np.arange(len(y), dtype=float), np.array(y))
    assert result.p_value == 1.0
    assert np.isnan(result.slope)


def test_a_flat_series_has_slope_zero() -> None:
    assert trend(np.arange(6.0), np.ones(6)).slope == 0.0


def test_turning_the_series_turns_the_slope() -> None:
    x, y = np.arange(8.0), np.random.default_rng(0).random(8)
    assert trend(x, -y).slope == pytest.approx(-trend(x, y).slope)
