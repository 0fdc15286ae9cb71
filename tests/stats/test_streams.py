from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from scipy import stats

from holdfast.core.errors import Defect
from holdfast.stats.streams.means import StreamLimits, betting_limits, sums_evidence

RUNS = 250
MOST = stats.binom.ppf(0.99, RUNS, 0.05)


def _missed(limits: StreamLimits, truth: float) -> bool:
    return bool(np.any((limits.low > truth + 1e-9) | (limits.high < truth - 1e-9)))


def _log_evidence(gap: np.ndarray) -> np.ndarray:
    """After each of these differences within ±1, that they are above 0 on average."""
    rows = np.arange(1, len(gap) + 1)
    earlier = np.concatenate([[0.0], np.cumsum(gap)])[: len(gap)] / rows
    return sums_evidence(np.cumsum(gap), np.cumsum((gap - earlier) ** 2), rows, 1.0, 0.0)


def test_the_true_mean_is_never_left_in_95_of_100_streams() -> None:
    sequence = functools.partial(betting_limits, grid=100)
    rng = np.random.default_rng(0)
    missed = [_missed(sequence(rng.beta(0.3, 1.2, 250)), 0.2) for _ in range(RUNS)]
    missed_rare = [_missed(sequence(1.0 * (rng.random(250) < 0.05)), 0.05) for _ in range(RUNS)]
    assert max(sum(missed), sum(missed_rare)) <= MOST


def test_a_plain_interval_at_every_row_would_leave_it() -> None:
    rng, missed = np.random.default_rng(0), 0
    for _ in range(RUNS):
        x = rng.beta(0.3, 1.2, 400)
        n = np.arange(1, 401)
        mean = np.cumsum(x) / n
        spread = np.sqrt(np.maximum(np.cumsum(x**2) / n - mean**2, 1e-12) / n)
        missed += bool(np.any(np.abs(mean - 0.2)[30:] > 1.96 * spread[30:]))
    assert missed / RUNS > 0.15


def test_limits_close_in_on_the_mean_and_never_widen() -> None:
    x = np.random.default_rng(1).normal(3.0, 0.2, 4000).clip(2, 5)
    limits = betting_limits(x, 2.0, 5.0, grid=100)
    assert limits.low[-1] < 3.0 < limits.high[-1]
    assert limits.high[-1] - limits.low[-1] < 0.1
    assert np.all(np.diff(limits.low) >= 0)
    assert np.all(np.diff(limits.high) <= 0)


def test_betting_refuses_what_the_capital_refuses_row_by_row() -> None:
    """The capital of one m in a plain loop, beside the limit on the grid."""
    x = 1.0 * (np.random.default_rng(3).random(120) < 0.8)
    refused = betting_limits(x, grid=256).low[-1]

    def richest(m: float) -> float:
        capital, most, past = 0.5, 0.0, []
        running = [0.25]
        for i, value in enumerate(x, 1):
            variance = sum(running) / i
            stake = np.sqrt(2 * np.log(40) / (variance * i * np.log(i + 1)))
            capital *= 1 + min(stake, 0.5 / m) * (value - m)
            most = max(most, capital)
            past.append(value)
            running.append((value - (0.5 + sum(past)) / (i + 1)) ** 2)
        return most

    assert richest(refused) >= 20 > richest(refused + 1 / 256)


def test_a_stream_in_two_chunks_is_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(4).random(100)
    whole = betting_limits(x)
    monkeypatch.setattr("holdfast.stats.streams.means.CHUNK", 700)
    assert np.allclose(betting_limits(x).low, whole.low)


def test_a_law_that_drifts_back_up_to_0_on_average_is_rarely_called_above_it() -> None:
    """The mean is −0.2 and later 0.2, so its average so far is at most 0 all the time; and a stream
    that is fair throughout."""
    rng, alarms = np.random.default_rng(5), 0
    mean = np.repeat([-0.2, 0.2], 250)
    for _ in range(RUNS):
        drift = np.where(rng.random(500) < (1 + mean) / 2, 1.0, -1.0)
        alarms += _log_evidence(drift).max() >= math.log(20)
        alarms += _log_evidence(rng.choice([-1.0, 0.0, 1.0], 500)).max() >= math.log(20)
    assert alarms <= 2 * MOST


def test_the_evidence_has_expectation_at_most_1() -> None:
    """All 2¹⁰ streams of a fair coin."""
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * 10)).reshape(10, -1).T
    e = np.exp(np.stack([_log_evidence(row) for row in signs]))
    assert len(e) == 1024
    assert np.all(e.mean(axis=0) <= 1 + 1e-12)


def test_a_true_difference_is_found_and_grows() -> None:
    gap = np.random.default_rng(6).choice([-1.0, 0.0, 1.0], 2000, p=[0.1, 0.7, 0.2])
    assert _log_evidence(gap).max() > math.log(1000)
    assert _log_evidence(-gap).max() < math.log(2)


def test_no_rows_give_no_limits() -> None:
    nothing = np.zeros(0)
    assert len(betting_limits(nothing).low) == len(_log_evidence(nothing)) == 0


def test_one_row_says_nearly_nothing() -> None:
    assert betting_limits(np.ones(1)).low[0] < 0.1
    assert _log_evidence(np.ones(1))[0] < math.log(2)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.5])
def test_values_beyond_the_promise_are_refused(value: float) -> None:
    x = np.array([0.5, value])
    with pytest.raises(Defect, match="must lie within"):
        betting_limits(x)


def test_wrong_settings_are_refused() -> None:
    x = np.array([0.5])
    with pytest.raises(Defect, match="low < high"):
        betting_limits(x, 1.0, 0.0)
    with pytest.raises(Defect, match="between 0 and 1"):
        betting_limits(x, alpha=0.0)
