from __future__ import annotations

import functools

import numpy as np
import pytest
from scipy import integrate, stats

from holdfast.core.errors import Defect
from holdfast.stats.streams.means import (
    StreamLimits,
    bernstein_limits,
    betting_limits,
    mean_evidence,
    mixture_sprt,
)

RUNS = 250
MOST = stats.binom.ppf(0.99, RUNS, 0.05)
SEQUENCES = [functools.partial(betting_limits, grid=100), bernstein_limits]


def _missed(limits: StreamLimits, truth: float) -> bool:
    return bool(np.any((limits.low > truth + 1e-9) | (limits.high < truth - 1e-9)))


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_the_true_mean_is_never_left_in_95_of_100_streams(sequence) -> None:
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


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_limits_close_in_on_the_mean_and_never_widen(sequence) -> None:
    x = np.random.default_rng(1).normal(3.0, 0.2, 4000).clip(2, 5)
    limits = sequence(x, 2.0, 5.0)
    assert limits.low[-1] < 3.0 < limits.high[-1]
    assert limits.high[-1] - limits.low[-1] < 0.1
    assert np.all(np.diff(limits.low) >= 0)
    assert np.all(np.diff(limits.high) <= 0)


def test_betting_is_the_narrower() -> None:
    x = 1.0 * (np.random.default_rng(2).random(300) < 0.1)
    betting, bernstein = betting_limits(x), bernstein_limits(x)
    assert betting.high[-1] - betting.low[-1] < bernstein.high[-1] - bernstein.low[-1]


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
        alarms += mean_evidence(drift, 1.0).p_value[-1] <= 0.05
        alarms += mean_evidence(rng.choice([-1.0, 0.0, 1.0], 500), 1.0).p_value[-1] <= 0.05
    assert alarms <= 2 * MOST


def test_the_evidence_has_expectation_at_most_1() -> None:
    """All 2¹⁰ streams of a fair coin."""
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * 10)).reshape(10, -1).T
    e = np.stack([mean_evidence(row, 1.0).e for row in signs])
    assert len(e) == 1024
    assert np.all(e.mean(axis=0) <= 1 + 1e-12)


def test_a_true_difference_is_found_and_grows() -> None:
    gap = np.random.default_rng(6).choice([-1.0, 0.0, 1.0], 2000, p=[0.1, 0.7, 0.2])
    found = mean_evidence(gap, 1.0)
    assert found.p_value[-1] < 0.001
    assert mean_evidence(-gap, 1.0).p_value[-1] > 0.5
    assert np.all(np.diff(found.p_value) <= 0)


def test_the_mixture_is_the_likelihood_ratio_averaged_over_effects() -> None:
    gap = np.random.default_rng(7).normal(0.4, 1.5, size=20)

    def weighted(theta: float) -> float:
        ratio = stats.norm.logpdf(gap, theta, 1.5).sum() - stats.norm.logpdf(gap, 0, 1.5).sum()
        return float(np.exp(ratio) * stats.norm.pdf(theta, 0, 0.7))

    expected = integrate.quad(weighted, -8, 8)[0]
    assert mixture_sprt(gap, 0.7, variance=2.25).e[-1] == pytest.approx(expected)


@pytest.mark.parametrize("variance", [1.0, None])
def test_the_mixture_rarely_calls_nothing_something(variance: float | None) -> None:
    rng = np.random.default_rng(8)
    p = [mixture_sprt(rng.normal(size=1000), 0.2, variance=variance) for _ in range(RUNS)]
    assert sum(found.p_value[-1] <= 0.05 for found in p) <= MOST


def test_unknown_variance_claims_nothing_early_or_without_spread() -> None:
    gap = np.random.default_rng(9).normal(5, 1, size=310)
    assert mixture_sprt(gap, 1.0).p_value[298] == 1.0
    assert mixture_sprt(gap, 1.0).p_value[299] < 0.01
    assert mixture_sprt(gap, 1.0, first=30).p_value[29] < 0.01
    assert mixture_sprt(np.full(310, 0.1), 1.0).p_value[-1] == 1.0


def test_a_skewed_stream_of_unknown_variance_is_rarely_called_something() -> None:
    """Exponential and rare one-sided differences: from row 30 on twice as many alarms as asked."""
    rng = np.random.default_rng(10)
    streams = [rng.exponential(1.0, 1000) - 1 for _ in range(RUNS)]
    streams += [(rng.random(1000) < 0.05) - 0.05 for _ in range(RUNS)]
    late = sum(mixture_sprt(x, 0.2).p_value[-1] <= 0.05 for x in streams)
    early = sum(mixture_sprt(x, 0.2, first=30).p_value[-1] <= 0.05 for x in streams)
    most = stats.binom.ppf(0.99, 2 * RUNS, 0.05)
    assert late <= most < early


def test_no_rows_give_no_limits() -> None:
    nothing = np.zeros(0)
    assert all(len(sequence(nothing).low) == 0 for sequence in SEQUENCES)
    assert len(mean_evidence(nothing, 1.0).e) == len(mixture_sprt(nothing, 1.0).e) == 0


def test_one_row_says_nearly_nothing() -> None:
    assert betting_limits(np.ones(1)).low[0] < 0.1
    assert bernstein_limits(np.ones(1)).low[0] == 0.0
    assert mean_evidence(np.ones(1), 1.0).p_value[0] > 0.5


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.5])
def test_values_beyond_the_promise_are_refused(value: float) -> None:
    x = np.array([0.5, value])
    for refuse in (betting_limits, bernstein_limits, lambda x: mean_evidence(x, 1.0)):
        with pytest.raises(Defect, match="must lie within"):
            refuse(x)
    if not np.isfinite(value):
        with pytest.raises(Defect, match="finite"):
            mixture_sprt(x, 1.0)


def test_wrong_settings_are_refused() -> None:
    x = np.array([0.5])
    with pytest.raises(Defect, match="low < high"):
        betting_limits(x, 1.0, 0.0)
    with pytest.raises(Defect, match="between 0 and 1"):
        bernstein_limits(x, alpha=0.0)
    with pytest.raises(Defect, match="positive"):
        mean_evidence(x, 0.0)
    with pytest.raises(Defect, match="positive"):
        mixture_sprt(x, 0.0)
