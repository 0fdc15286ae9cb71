"""Statistics that only benchmarks call, each against an independent oracle or by simulation."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from scipy import integrate, stats

RUNS = 200
# False alarms at 5 % of so many runs, 99 % of the time.
MOST = stats.binom.ppf(0.99, RUNS, 0.05)


@pytest.fixture
def looks() -> ModuleType:
    import looks

    return looks


@pytest.fixture
def streams() -> ModuleType:
    import streams

    return streams


@pytest.fixture
def cross_validation() -> ModuleType:
    import cross_validation

    return cross_validation


def _flat(rng: np.random.Generator, n: int = 100, looks: int = 10) -> np.ndarray:
    return rng.exponential(0.5, size=(n, 1)) + rng.normal(size=(n, looks)) * 0.2


def test_a_clear_rise_is_found_where_it_starts(looks: ModuleType) -> None:
    rng = np.random.default_rng(0)
    losses = _flat(rng, looks=6)
    losses[:, 2] -= 0.2
    losses[:, 5] += 0.2
    rise = looks.rise_from_best(losses, seed=rng)
    assert rise.best == 2
    assert rise.p_value < 0.01
    assert rise.value == pytest.approx(losses[:, 5].mean() - losses[:, 2].mean())
    assert rise.t == pytest.approx(stats.ttest_rel(losses[:, 5], losses[:, 2]).statistic)


def test_flat_paths_are_rarely_called_rising(looks: ModuleType) -> None:
    rng, runs = np.random.default_rng(0), 200
    paths = (_flat(rng) for _ in range(runs))
    alarms = sum(looks.rise_from_best(p, seed=rng, resamples=200).p_value < 0.05 for p in paths)
    assert alarms / runs <= 0.06


def test_a_plain_test_against_the_best_would_cry_wolf_there() -> None:
    """What the max statistic is for: the naive t test of last against best on the same paths."""
    rng, runs, alarms = np.random.default_rng(0), 200, 0
    for _ in range(runs):
        losses = _flat(rng)
        best = losses.mean(0).argmin()
        gap = losses[:, -1] - losses[:, best]
        error = gap.std() / 10
        alarms += error > 0 and gap.mean() / error > 1.645
    assert alarms / runs > 0.15


def test_the_best_being_last_is_no_rise(looks: ModuleType) -> None:
    losses = _flat(np.random.default_rng(0))
    losses[:, -1] -= 1
    rise = looks.rise_from_best(losses, seed=np.random.default_rng(0))
    assert (rise.t, rise.p_value) == (0.0, 1.0)


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (50, 1)])
def test_too_little_gives_no_p_value(looks: ModuleType, shape: tuple[int, int]) -> None:
    assert np.isnan(looks.rise_from_best(np.ones(shape), seed=np.random.default_rng(0)).p_value)


def test_copies_of_rows_are_not_new_evidence_when_grouped(looks: ModuleType) -> None:
    rng = np.random.default_rng(3)
    losses = _flat(rng, n=30, looks=4)
    losses[:, -1] += 0.06
    copies, groups = np.repeat(losses, 20, axis=0), np.repeat(np.arange(30), 20)
    single = looks.rise_from_best(losses, seed=np.random.default_rng(0))
    grouped = looks.rise_from_best(copies, seed=np.random.default_rng(0), groups=groups)
    naive = looks.rise_from_best(copies, seed=np.random.default_rng(0))
    assert grouped.t == pytest.approx(single.t)
    assert naive.p_value < grouped.p_value


def test_many_rows_are_drawn_from_the_normal_law_with_the_same_result(looks: ModuleType) -> None:
    rng = np.random.default_rng(0)
    many = _flat(rng, n=1100, looks=5)
    many[:, -1] += 0.008
    groups = np.arange(1100) % 1000
    by_law = looks.rise_from_best(many, seed=rng, resamples=4000)
    by_rows = looks.rise_from_best(many, seed=rng, groups=groups, resamples=4000)
    assert 0.005 < by_law.p_value < 0.5
    assert by_law.p_value == pytest.approx(by_rows.p_value, rel=0.5)


def test_halves_that_share_no_row_give_an_interval_that_is_rather_too_wide(
    cross_validation: ModuleType,
) -> None:
    rng, held, widths, n = np.random.default_rng(2), 0, [], 60
    for _ in range(400):
        rows = rng.normal(size=n)
        halves = []
        for _ in range(20):
            order = rng.permutation(n)
            halves.append((rows[order[: n // 2]].mean(), rows[order[n // 2 :]].mean()))
        found = cross_validation.conservative_z(rows.mean(), np.array(halves))
        held += found.low <= 0 <= found.high
        widths.append(found.high - found.low)
    # Of a mean the variance of n/2 rows is twice that of n: z √2 in place of z.
    assert np.mean(widths) == pytest.approx(2 * stats.norm.ppf(0.975) * np.sqrt(2 / n), rel=0.05)
    assert held / 400 >= 0.97


def test_without_halves_or_with_one_that_is_undefined_no_limits(
    cross_validation: ModuleType,
) -> None:
    z = cross_validation.conservative_z
    assert np.isnan(z(0.5, np.zeros((0, 2))).low)
    assert np.isnan(z(0.5, np.array([[0.1, np.nan]])).high)
    assert z(0.5, np.array([[0.1, 0.1]])).low == 0.5


def test_bernstein_limits_rarely_leave_the_true_mean(streams: ModuleType) -> None:
    rng, left = np.random.default_rng(0), 0
    for _ in range(RUNS):
        found = streams.bernstein_limits(rng.beta(0.3, 0.7, size=400))
        left += bool(np.any((found.low > 0.3) | (found.high < 0.3)))
    assert left <= MOST


def test_bernstein_limits_close_in_on_the_mean_and_never_widen(streams: ModuleType) -> None:
    x = np.random.default_rng(1).beta(2.0, 3.0, size=3000)
    found = streams.bernstein_limits(x)
    assert np.all(np.diff(found.low) >= 0)
    assert np.all(np.diff(found.high) <= 0)
    assert found.low[-1] < 0.4 < found.high[-1]
    assert found.high[-1] - found.low[-1] < 0.05
    assert found.value == pytest.approx(np.cumsum(x) / np.arange(1, 3001))
    assert streams.bernstein_limits(np.ones(1)).low[0] == 0.0


def test_betting_is_narrower_than_bernstein(streams: ModuleType) -> None:
    x = 1.0 * (np.random.default_rng(2).random(300) < 0.1)
    betting, bernstein = streams.betting_limits(x), streams.bernstein_limits(x)
    assert betting.high[-1] - betting.low[-1] < bernstein.high[-1] - bernstein.low[-1]


def test_evidence_of_a_drifting_stream_that_is_0_on_average_is_rarely_large(
    streams: ModuleType,
) -> None:
    rng, alarms = np.random.default_rng(3), 0
    for _ in range(RUNS // 2):
        drift = np.concatenate([-rng.random(250), rng.random(250)]) * 0.9
        alarms += streams.mean_evidence(drift, 1.0).p_value[-1] <= 0.05
        signs = rng.choice([-1.0, 0.0, 1.0], 500)
        alarms += streams.mean_evidence(signs, 1.0).p_value[-1] <= 0.05
    assert alarms <= MOST


def test_evidence_is_1_on_average_under_the_null_and_its_p_value_never_rises(
    streams: ModuleType,
) -> None:
    rng = np.random.default_rng(4)
    signs = rng.choice([-1.0, 1.0], size=(4000, 30))
    e = np.stack([streams.mean_evidence(row, 1.0).e for row in signs])
    assert e.mean(axis=0).max() <= 1.1
    gap = np.clip(rng.normal(0.2, 0.4, size=600), -1, 1)
    found = streams.mean_evidence(gap, 1.0)
    assert found.p_value[-1] < 0.001
    assert streams.mean_evidence(-gap, 1.0).p_value[-1] > 0.5
    assert np.all(np.diff(found.p_value) <= 0)
    assert streams.mean_evidence(np.ones(1), 1.0).p_value[0] > 0.5


def test_the_mixture_is_the_likelihood_ratio_averaged_over_effects(streams: ModuleType) -> None:
    gap = np.random.default_rng(7).normal(0.4, 1.5, size=20)

    def weighted(theta: float) -> float:
        ratio = stats.norm.logpdf(gap, theta, 1.5).sum() - stats.norm.logpdf(gap, 0, 1.5).sum()
        return float(np.exp(ratio) * stats.norm.pdf(theta, 0, 0.7))

    expected = integrate.quad(weighted, -8, 8)[0]
    assert streams.mixture_sprt(gap, 0.7, variance=2.25).e[-1] == pytest.approx(expected)


@pytest.mark.parametrize("variance", [1.0, None])
def test_the_mixture_rarely_calls_nothing_something(
    streams: ModuleType, variance: float | None
) -> None:
    rng = np.random.default_rng(8)
    gaps = [rng.normal(size=1000) for _ in range(RUNS)]
    found = [streams.mixture_sprt(gap, 0.2, variance=variance) for gap in gaps]
    assert sum(one.p_value[-1] <= 0.05 for one in found) <= MOST


def test_unknown_variance_claims_nothing_early_or_without_spread(streams: ModuleType) -> None:
    gap = np.random.default_rng(9).normal(5, 1, size=310)
    assert streams.mixture_sprt(gap, 1.0).p_value[298] == 1.0
    assert streams.mixture_sprt(gap, 1.0).p_value[299] < 0.01
    assert streams.mixture_sprt(gap, 1.0, first=30).p_value[29] < 0.01
    assert streams.mixture_sprt(np.full(310, 0.1), 1.0).p_value[-1] == 1.0


def test_a_skewed_stream_of_unknown_variance_is_rarely_called_something(
    streams: ModuleType,
) -> None:
    """Exponential and rare one-sided differences: from row 30 on twice as many alarms as asked."""
    rng = np.random.default_rng(10)
    gaps = [rng.exponential(1.0, 1000) - 1 for _ in range(RUNS)]
    gaps += [(rng.random(1000) < 0.05) - 0.05 for _ in range(RUNS)]
    late = sum(streams.mixture_sprt(x, 0.2).p_value[-1] <= 0.05 for x in gaps)
    early = sum(streams.mixture_sprt(x, 0.2, first=30).p_value[-1] <= 0.05 for x in gaps)
    most = stats.binom.ppf(0.99, 2 * RUNS, 0.05)
    assert late <= most < early
