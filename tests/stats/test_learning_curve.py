"""The foretold gain of twice the rows: a closed form, and how often its interval is right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import multivariate_t

from holdfast.core.records import Estimate, Floats, Ints
from holdfast.stats import learning_curve
from holdfast.stats.learning_curve import RATIO, STEEPER, Doublings, is_told, room_above


def drawn(gains: tuple[float, float], rows: int, rng: np.random.Generator) -> Floats:
    """Scores of rows whose mean gains are these, with errors that two sizes share in part."""
    shared = rng.standard_normal(rows)
    own = 0.5 * rng.standard_normal((3, rows))
    means = np.cumsum([0.0, *gains])[:, None]
    return np.asarray(means + shared + own)


def foretell(
    scores: Floats, groups: Ints, room: tuple[float, float] = (math.inf, math.inf)
) -> Estimate:
    return Doublings.from_scores(scores, groups).foretell(room=room)


def test_without_noise_the_gain_is_the_ratio_times_the_last_one() -> None:
    rng = np.random.default_rng(0)
    scores = drawn((0.1 / RATIO, 0.1), 200_000, rng)
    found = foretell(scores, np.arange(scores.shape[1]))
    assert found.value == pytest.approx(0.1 * RATIO, abs=0.004)
    assert is_told(found)


def test_with_few_rows_it_cannot_be_told() -> None:
    scores = drawn((0.05, 0.02), 40, np.random.default_rng(1))
    found = foretell(scores, np.arange(40))
    assert not is_told(found)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high


@pytest.mark.parametrize("n", [12, 60])
@pytest.mark.parametrize("gains", [(0.2, 0.15), (0.1, 0.25), (0.3, 0.05)])
def test_it_is_the_posterior_with_a_flat_prior(n: int, gains: tuple[float, float]) -> None:
    """Draws of the ratio and of the last gain, weighted by SciPy's density of what is seen."""
    scores = drawn(gains, n, np.random.default_rng(2))
    steps = np.diff(scores, axis=0)
    covariance = learning_curve.WIDENED * np.cov(steps) / n
    rng = np.random.default_rng(0)
    changes = learning_curve.RATIO_SPREAD * rng.standard_normal((2, 1_000_000))
    ratios = RATIO * np.exp(changes[0])
    last = rng.uniform(-1.5, 2, 1_000_000)
    seen = steps.mean(axis=1) - np.stack([last / ratios, last], axis=1)
    weights = multivariate_t(shape=covariance, df=n - 1).pdf(seen)
    products = np.sqrt(RATIO * ratios) * np.exp(changes[1]) * last
    order = np.argsort(products)
    shares = np.cumsum(weights[order]) / weights.sum()
    expected = np.interp([0.025, 0.5, 0.975], shares, products[order])
    found = foretell(scores, np.arange(n))
    assert [found.low, found.value, found.high] == pytest.approx(expected.tolist(), abs=0.015)


@pytest.mark.parametrize("ratio", [0.45, 0.62, 0.8])
def test_the_interval_holds_the_gain_of_such_a_curve(ratio: float) -> None:
    rng = np.random.default_rng(3)
    truth, hits = 0.3 * ratio, 0
    for _ in range(200):
        gain = foretell(drawn((0.3 / ratio, 0.3), 80, rng), np.arange(80))
        assert gain.low is not None
        assert gain.high is not None
        hits += gain.low <= truth <= gain.high
    assert hits >= 180


def test_a_curve_that_gets_steeper_foretells_nothing() -> None:
    scores = drawn((0.02, 0.4), 200, np.random.default_rng(5))
    gain = foretell(scores, np.arange(200))
    assert (gain.value, gain.low, gain.high, gain.why) == (None, None, None, STEEPER)
    assert not is_told(gain)


def test_a_curve_of_equal_gains_hardly_ever_looks_steeper() -> None:
    """The share of false alarms is below the level, because the error is widened."""
    rng = np.random.default_rng(6)
    curves = [foretell(drawn((0.1, 0.1), 60, rng), np.arange(60)) for _ in range(300)]
    assert sum(one.value is None for one in curves) <= 300 * 0.025


def test_rows_of_a_group_count_once_and_equal_scores_have_no_interval() -> None:
    scores = drawn((0.2, 0.1), 50, np.random.default_rng(4))
    alone = foretell(scores, np.arange(50))
    doubled = foretell(np.repeat(scores, 2, axis=1), np.repeat(np.arange(50), 2))
    assert doubled.value == pytest.approx(alone.value)
    assert doubled.low == pytest.approx(alone.low, rel=0.02)
    same = foretell(np.ones((3, 10)), np.arange(10))
    assert (same.low, same.high) == (None, None)
    assert same.why


def test_five_groups_cover_the_gain_and_four_have_no_interval() -> None:
    rng, covered, steeper = np.random.default_rng(5), 0, 0
    groups = np.repeat(np.arange(5), 20)
    for _ in range(200):
        ratio = RATIO * math.exp(learning_curve.RATIO_SPREAD * rng.standard_normal())
        steps = rng.normal(0, 0.15, (2, 5))[:, groups] + rng.normal(0, 0.3, (2, 100))
        gains = np.array([[0.03 / ratio], [0.03]]) + steps
        scores = np.vstack([np.zeros(100), gains[0], gains.sum(axis=0)])
        gain = foretell(scores, groups)
        steeper += gain.why == STEEPER
        if gain.low is not None and gain.high is not None:
            covered += gain.low <= 0.03 * ratio <= gain.high
    assert steeper <= 0.025 * 200
    assert covered >= 0.93 * (200 - steeper)
    few = foretell(scores, np.minimum(groups, 3))
    assert (few.low, few.high) == (None, None)


def test_no_score_passes_the_best_one() -> None:
    """75, 92 and 99 % of 100 rows are right: a gain of more than 1 point is not possible, and by
    the interval of 99 % one of more than 5.4 points is unlikely."""
    right = np.arange(100)
    scores = np.stack([(right < count).astype(float) for count in (75, 92, 99)])
    free = foretell(scores, np.arange(100))
    assert free.value is not None
    assert free.high is not None
    assert free.value > 0.01
    assert free.high > 0.054
    for score, sign in ((Estimate(0.99, 0.946, 0.998), 1), (Estimate(0.01, 0.002, 0.054), -1)):
        room = room_above(score, 1.0 if sign > 0 else 0.0)
        kept = foretell(scores, np.arange(100), room=room)
        assert (kept.value, kept.high) == (pytest.approx(0.01), pytest.approx(0.054))
        assert kept.low == pytest.approx(min(free.low or 0, 0.01))
    all_right = foretell(scores, np.arange(100), room=room_above(Estimate(1.0, 0.96, 1.0), 1.0))
    assert all_right.value == 0
    assert not is_told(all_right)
    assert room_above(Estimate(None, why="undefined"), 1.0) == (math.inf, math.inf)
    assert room_above(Estimate(0.9), 1.0) == (pytest.approx(0.1), math.inf)
