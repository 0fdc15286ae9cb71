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


def _following(rng: np.random.Generator, n: int, share: float) -> np.ndarray:
    y = np.zeros(n + 30)
    for i in range(1, n + 30):
        y[i] = share * y[i - 1] + rng.normal()
    return y[30:]


def _alarms(share: float, correlated: bool, runs: int = 80) -> float:
    rng, x = np.random.default_rng(0), np.arange(30.0)
    found = [trend(x, _following(rng, 30, share), correlated=correlated) for _ in range(runs)]
    return float(np.mean([f.p_value < 0.05 for f in found]))


def test_points_that_follow_each_other_need_the_correction() -> None:
    assert _alarms(0.5, correlated=False) > 0.15
    assert _alarms(0.5, correlated=True) <= 0.12
    assert _alarms(0.0, correlated=True) <= 0.1


def test_the_correction_never_lowers_a_p_value_and_keeps_a_clear_trend() -> None:
    rng, x = np.random.default_rng(1), np.arange(20.0)
    for y in (rng.normal(size=20), rng.normal(size=20) + x):
        assert trend(x, y, correlated=True).p_value >= trend(x, y).p_value
    assert trend(x, rng.normal(size=20) + x, correlated=True).p_value < 0.001
    shuffled = rng.permutation(20)
    y = _following(rng, 20, 0.5) + x / 5
    assert trend(x[shuffled], y[shuffled], correlated=True).p_value == pytest.approx(
        trend(x, y, correlated=True).p_value
    )


def test_fewer_than_eight_points_cannot_be_corrected() -> None:
    assert trend(np.arange(7.0), np.arange(7.0), correlated=True).p_value == 1.0
    assert trend(np.arange(8.0), np.arange(8.0), correlated=True).p_value < 0.05
