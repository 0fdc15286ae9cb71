"""What a range test suggests, on curves whose answer is known, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from holdfast.stats.rate_curve import smoothed, suggest

RATES = np.geomspace(1e-7, 1.0, 100)
STARTS = 0.7 + 0.3 * np.sin(np.arange(100))


def curve(steepest: float, fall: float = 0.5, explodes: float = 1e-2) -> np.ndarray:
    """A fall in the shape of a logistic of the rate's logarithm, and an explosion."""
    change = -fall / (1 + np.exp(-6 * (np.log10(RATES) - np.log10(steepest))))
    return STARTS + change + 5 * np.maximum(0, np.log10(RATES / explodes))


def test_smoothing_is_scipy_s_away_from_the_ends() -> None:
    values = np.random.default_rng(0).normal(size=80)
    ours, theirs = smoothed(values), gaussian_filter1d(values, 2.0, truncate=8)
    assert ours[16:-16].tolist() == pytest.approx(theirs[16:-16].tolist(), abs=1e-9)
    assert smoothed(np.ones(5)).tolist() == pytest.approx([1] * 5)


@pytest.mark.parametrize("steepest", [1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_the_rate_of_the_steepest_fall_is_suggested(steepest: float, noise: float) -> None:
    losses = curve(steepest) + noise * np.random.default_rng(1).normal(size=100)
    found = suggest(RATES, losses, STARTS)
    assert found.rate is not None
    assert abs(np.log10(found.rate / steepest)) < 0.35
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.rate < found.high < 3e-2
    assert found.smoothed.shape == (100,)
    assert "falls fastest" in found.because


def test_a_small_fall_is_seen_between_rows_that_differ_much() -> None:
    """Each row is compared with itself: against the mean of all, the fall is lost among them."""
    starts = 0.7 + 0.3 * np.random.default_rng(2).normal(size=100)
    losses = curve(1e-4, fall=0.05) - STARTS + starts
    found = suggest(RATES, losses, starts)
    assert found.rate == pytest.approx(1e-4, rel=0.5)
    assert suggest(RATES, losses, np.full(100, starts.mean())).rate is None


def test_rows_that_differ_are_no_fall_and_no_rise() -> None:
    """The losses swing by their rows alone, by a third of the mean: nothing moves them."""
    found = suggest(RATES, STARTS.copy(), STARTS)
    assert found.rate is None
    assert found.low is found.high is None
    assert "not enough evidence" in found.because


@pytest.mark.parametrize("seed", range(20))
def test_noise_alone_suggests_nothing(seed: int) -> None:
    losses = STARTS + 0.1 * np.random.default_rng(seed).normal(size=100)
    assert suggest(RATES, losses, STARTS).rate is None


def test_a_curve_that_only_rises_suggests_nothing() -> None:
    losses = STARTS + np.linspace(0, 3, 100)
    assert suggest(RATES, losses, STARTS).rate is None


def test_a_few_updates_are_no_curve() -> None:
    found = suggest(RATES[:4], curve(1e-4)[:4], STARTS[:4])
    assert found.rate is None
    assert "after 4 updates" in found.because


def test_one_that_still_falls_at_the_end_is_told_so() -> None:
    found = suggest(RATES, curve(0.5, explodes=1e9), STARTS)
    assert found.rate is not None
    assert "still falling" in found.because
