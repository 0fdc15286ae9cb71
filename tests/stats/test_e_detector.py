"""The e-detector, against a plain loop, SciPy and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from holdfast.core.errors import Defect
from holdfast.stats.streams.means import BOLDEST, STAKES, Detector, mean_above, share_above


def _slow(values: np.ndarray, bounds: list[float]) -> tuple[float, int]:
    """The average of M by its definition, a sum of products over every start, and the start of the
    bet that won most."""
    total, best = [], (-math.inf, 0)
    for k, bound in enumerate(bounds):
        for power in range(STAKES):
            stake = BOLDEST / bound / 2**power
            factors = 1 + stake * (values[:, k] - bound)
            total.append(sum(np.prod(factors[start:]) for start in range(len(values))))
            for start in range(len(values)):
                won = float(np.log(factors[start:]).sum())
                if won > best[0] + 1e-12:
                    best = (won, start)
    return float(np.mean(total)), best[1]


def test_it_is_the_sum_of_bets_begun_at_every_row() -> None:
    random = np.random.default_rng(3)
    values = np.concatenate([random.uniform(0, 1, (25, 2)), random.uniform(0.5, 1, (15, 2))])
    found, at = Detector.of_bounds(np.array([0.55, 0.6])).add(values, math.inf)
    level, since = _slow(values, [0.55, 0.6])
    assert at is None
    assert found.level == pytest.approx(level, rel=1e-9)
    assert found.since == since
    assert 15 <= since <= 27


def test_parts_and_a_restart_change_nothing() -> None:
    values = np.random.default_rng(0).uniform(0, 1, (50, 3))
    whole, _ = Detector.of_bounds(np.array([0.5, 0.55, 0.6])).add(values, math.inf)
    parts = Detector.of_bounds(np.array([0.5, 0.55, 0.6]))
    for start in range(0, 50, 7):
        parts = Detector.from_json(parts.add(values[start : start + 7], math.inf)[0].to_json())
    assert parts.to_json() == whole.to_json()


def test_rows_between_alarms_are_as_many_as_promised() -> None:
    # At the bound itself, where the promise is tightest, and skewed.
    random, limit, lengths = np.random.default_rng(1), 60.0, []
    for _ in range(150):
        values = (random.uniform(0, 1, (3000, 1)) < 0.3).astype(float)
        found, at = Detector.of_bounds(np.array([0.3])).add(values, limit)
        lengths.append(found.rows if at is None else at)
    assert np.mean(lengths) >= limit
    # Not for want of boldness: it does alarm.
    assert np.median(lengths) < 20 * limit


def test_it_stops_at_the_row_of_the_alarm() -> None:
    values = np.concatenate([np.full((30, 1), 0.4), np.full((30, 1), 0.9)])
    found, at = Detector.of_bounds(np.array([0.5])).add(values, 1000.0)
    assert at is not None
    assert 30 < at < 50
    assert found.rows == at
    assert found.since == 30


def test_what_is_not_known_is_not_bet_on() -> None:
    values = np.array([[0.9, np.nan]] * 5)
    found, _ = Detector.of_bounds(np.array([0.5, 0.5])).add(values, math.inf)
    assert found.evidence[1].max() == 0
    assert found.evidence[0].min() > 0
    assert found.by == 0


def test_values_and_bounds_that_break_the_promise_are_refused() -> None:
    with pytest.raises(Defect, match="0, 1"):
        Detector.of_bounds(np.array([0.5])).add(np.array([[1.5]]), 10.0)
    for bound in (0.0, 1.0, float("nan")):
        with pytest.raises(Defect, match="bounds"):
            Detector.of_bounds(np.array([bound]))


def test_limits_are_those_of_scipy() -> None:
    exact = stats.binomtest(7, 50).proportion_ci(0.98, method="exact").high
    assert share_above(7, 50, 0.99) == pytest.approx(exact)
    assert share_above(50, 50, 0.99) < 1
    assert mean_above(100, 2.0, 0.975) == pytest.approx(0.2 * stats.norm.ppf(0.975))
