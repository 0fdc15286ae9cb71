from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import expit, logit

from holdfast.stats.temperature import calibration_error_interval

Curve = Callable[[np.ndarray], np.ndarray]


def sure_of(n: int, rng: np.random.Generator) -> np.ndarray:
    return np.clip(rng.beta(4, 1.2, n) * 0.5 + 0.5, 0.5, 0.999)


def true_error(curve: Curve) -> float:
    """By drawing so many confidences that the mean distance is known to 1e-3."""
    sure = sure_of(200_000, np.random.default_rng(1))
    return float(np.abs(curve(sure) - sure).mean())


CURVES: dict[str, Curve] = {
    "right": lambda c: c,
    "overconfident": lambda c: expit(0.6 * logit(c)),
    "shifted": lambda c: np.clip(c - 0.1, 0, 1),
    "guessing": lambda c: np.full_like(c, 0.5),
    "far too sure": lambda c: expit(logit(c) - 2.5),
    "too modest": lambda c: expit(logit(c) + 2),
    "wavy": lambda c: np.clip(c + 0.08 * np.sin(14 * c), 0, 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("rows", [50, 400])
@pytest.mark.parametrize("name", sorted(CURVES))
def test_the_interval_holds_the_truth_as_often_as_it_says(name: str, rows: int) -> None:
    """120 samples: a coverage of 95 % shows below 90 in one of 100 tries."""
    curve, truth, held = CURVES[name], true_error(CURVES[name]), 0
    rng = np.random.default_rng(0)
    for _ in range(120):
        sure = sure_of(rows, rng)
        right = (rng.random(rows) < curve(sure)).astype(float)
        low, high = calibration_error_interval(sure, right, seed=rng, draws=300)
        held += low <= truth <= high
    assert held >= 108


def test_many_rows_close_in_on_the_truth() -> None:
    rng = np.random.default_rng(0)
    sure = sure_of(60_000, rng)
    curve = CURVES["overconfident"]
    low, high = calibration_error_interval(
        sure, (rng.random(60_000) < curve(sure)).astype(float), seed=rng
    )
    assert (low, high) == pytest.approx((true_error(curve),) * 2, abs=0.01)
    assert low < high


def test_grouped_rows_are_wider() -> None:
    rng = np.random.default_rng(0)
    sure = sure_of(300, rng)
    right = (rng.random(300) < sure - 0.1).astype(float)
    alone, grouped = (
        calibration_error_interval(sure, right, seed=np.random.default_rng(0), effect=effect)
        for effect in (1.0, 4.0)
    )
    assert grouped[1] - grouped[0] > 1.3 * (alone[1] - alone[0])


@pytest.mark.parametrize("rows", [1, 2, 30])
@pytest.mark.parametrize("sure", [0.5, 1.0])
def test_ties_certainty_and_single_rows_have_limits(rows: int, sure: float) -> None:
    """All right, all wrong, and one confidence throughout."""
    for right in (np.zeros(rows), np.ones(rows)):
        low, high = calibration_error_interval(
            np.full(rows, sure), right, seed=np.random.default_rng(0)
        )
        assert 0 <= low <= high <= 1
    wrong = calibration_error_interval(
        np.full(30, 1.0), np.zeros(30), seed=np.random.default_rng(0)
    )
    assert wrong[0] > 0.5
