from __future__ import annotations

import numpy as np
import pytest

from holdfast.stats.intervals import f1_correlation, f1_limits, mean_limits, rate_limits, wilson


def test_f1_limits_turn_wilsons_limits_of_the_right_share() -> None:
    low, high = f1_limits(np.array([7]), np.array([10]))
    share_low, share_high = wilson(7, 10)
    assert low[0] == pytest.approx(2 * share_low / (1 + share_low))
    assert high[0] == pytest.approx(2 * share_high / (1 + share_high))


def test_a_class_without_rows_is_quite_unknown() -> None:
    low, high = rate_limits(np.array([0]), np.array([0]))
    assert (low[0], high[0]) == (0.0, 1.0)


def test_one_class_keeps_its_own_limits() -> None:
    limits = mean_limits(np.array([0.7]), np.array([0.5]), np.array([0.8]), np.eye(1))
    assert limits == pytest.approx((0.5, 0.8))


def test_unrelated_classes_join_in_quadrature_and_equal_ones_add() -> None:
    value, low, high = np.full(4, 0.5), np.full(4, 0.4), np.full(4, 0.6)
    assert mean_limits(value, low, high, np.eye(4)) == pytest.approx((0.45, 0.55))
    assert mean_limits(value, low, high, np.ones((4, 4))) == pytest.approx((0.4, 0.6))


def test_the_limits_always_hold_the_mean() -> None:
    value, low, high = np.full(4, 0.5), np.full(4, 0.45), np.full(4, 0.55)
    shifted = mean_limits(value, low, high, np.eye(4), bias=-0.2)
    assert shifted[0] <= 0.5 <= shifted[1]


def test_the_correlation_is_that_of_simulated_f1() -> None:
    law = np.array([[0.30, 0.05, 0.02], [0.04, 0.25, 0.04], [0.01, 0.06, 0.23]])
    draws = np.random.default_rng(0).multinomial(2000, law.ravel(), size=6000).reshape(-1, 3, 3)
    right = np.diagonal(draws, axis1=1, axis2=2)
    f1 = 2 * right / (draws.sum(1) + draws.sum(2))
    simulated = np.corrcoef(f1.T)
    assert f1_correlation(2000 * law) == pytest.approx(simulated, abs=0.05)


@pytest.mark.parametrize("confusion", [np.eye(3) * 10, np.zeros((2, 2)), 1 - np.eye(3)])
def test_all_right_and_all_wrong_still_correlate(confusion: np.ndarray) -> None:
    correlation = f1_correlation(confusion)
    assert np.isfinite(correlation).all()
    assert np.diag(correlation) == pytest.approx(1.0)
    assert np.linalg.eigvalsh(correlation).min() > -1e-9
