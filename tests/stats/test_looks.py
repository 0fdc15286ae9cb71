from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import stats

from holdfast.core.errors import Defect
from holdfast.stats.sequential_rise import (
    POWER,
    ErrorSpending,
    RiseState,
    _skews,
    lower_for_skew,
    rise_at_evaluation,
    times_by_plan,
    times_without_plan,
)


def _path(
    rng: np.random.Generator, n: int = 60, looks: int = 12, best: int = 4, rise: float = 0.0
) -> np.ndarray:
    """Losses with heavy tails that walk row by row; their mean falls to ``best`` and then stays, or
    rises in a line to ``rise`` standard errors of (last − best)."""
    steps = rng.standard_t(4, size=(n, looks)) * np.exp(rng.normal(0, 0.5, (n, 1)))
    hard = rng.exponential(1.0, size=(n, 1))
    after = np.arange(looks) - best
    fall = np.where(after < 0, (after / best) ** 2, 0.0)
    # Var t₄ = 2 and E exp(2·½Z) = exp(½).
    more = max(1, looks - 1 - best)
    up = rise * np.sqrt(more * 2 * np.exp(0.5) / n) * np.clip(after, 0, None) / more
    return np.asarray(hard * (1 + fall) + steps.cumsum(axis=1) + up)


def _look(
    losses: np.ndarray, planned: int | None = None, seed: int = 0, **others: object
) -> RiseState:
    """By default the looks are all that were planned, evenly spaced."""
    times = np.arange(1, losses.shape[1] + 1) / (planned or losses.shape[1])
    names = {field.name for field in dataclasses.fields(ErrorSpending)}
    spending = {name: others.pop(name) for name in names & set(others)}
    plan = ErrorSpending(**{"times": times, **spending})  # type: ignore[arg-type]
    return rise_at_evaluation(losses, plan, seed=np.random.default_rng(seed), **others)  # type: ignore[arg-type]


@pytest.mark.slow
def test_runs_that_never_rise_are_rarely_called_rising_at_any_look() -> None:
    """400 runs of twelve looks, against the 99 % limit of a rate of 5 %."""
    rng, runs = np.random.default_rng(0), 400
    flat = (_path(rng, best=b) for b in itertools.islice(itertools.cycle([1, 4, 8]), runs))
    alarms = sum(
        _look(losses, seed=i, resamples=1000).alarm_at is not None for i, losses in enumerate(flat)
    )
    assert alarms <= stats.binom.ppf(0.99, runs, 0.05)


def test_looking_at_each_state_with_a_plain_test_would_cry_wolf_there() -> None:
    rng, runs, alarms = np.random.default_rng(0), 200, 0
    for _ in range(runs):
        losses = _path(rng, best=1)
        means = losses.mean(axis=0)
        worst = 0.0
        for last in range(1, losses.shape[1]):
            gap = losses[:, last] - losses[:, means[: last + 1].argmin()]
            worst = max(worst, gap.mean() / max(gap.std(ddof=1), 1e-9) * np.sqrt(len(gap)))
        alarms += worst > stats.t.ppf(0.95, len(losses) - 1)
    assert alarms / runs > 0.15


@pytest.mark.slow
def test_a_rise_that_a_fixed_test_finds_in_90_of_100_runs_is_found_in_72() -> None:
    rng, runs = np.random.default_rng(1), 300
    paths = (_path(rng, rise=2.93) for _ in range(runs))
    found = sum(_look(p, seed=i, resamples=1000).alarm_at is not None for i, p in enumerate(paths))
    assert found / runs >= 0.72


def test_a_later_look_changes_no_earlier_answer() -> None:
    losses = _path(np.random.default_rng(3), looks=12, rise=6)
    alarms = [_look(losses[:, :k], planned=12).alarm_at for k in range(2, 13)]
    first = next(alarm for alarm in alarms if alarm is not None)
    assert alarms == [None] * (first - 1) + [first] * (12 - first)


def test_an_alarm_is_a_p_value_at_most_alpha() -> None:
    rng = np.random.default_rng(4)
    results = [
        (_look(_path(rng, rise=2.0), alpha=alpha), alpha)
        for alpha in (0.01, 0.05, 0.2)
        for _ in range(15)
    ]
    assert {(r.alarm_at is not None) == (r.p_value <= alpha) for r, alpha in results} == {True}
    assert {r.alarm_at is None for r, _ in results} == {True, False}


def test_a_recovery_does_not_take_an_alarm_back() -> None:
    losses = _path(np.random.default_rng(5), looks=10, best=3)
    losses[:, 6] += 5.0
    losses[:, 9] -= 5.0
    result = _look(losses)
    assert (result.alarm_at, result.best, result.value) == (6, 9, 0.0)
    assert result.since == losses[:, :7].mean(axis=0).argmin() + 1


def test_t_is_scipys_paired_statistic_with_half_of_the_error_shared() -> None:
    """SciPy's t of each pair, times √(se ÷ median se of all pairs); symmetric laws, no skew."""
    losses = _path(np.random.default_rng(6), n=400, looks=7, best=1)
    losses = np.concatenate([losses, 2 * losses.mean(axis=0) - losses])
    pairs = itertools.combinations(range(7), 2)
    errors = {(i, k): stats.sem(losses[:, k] - losses[:, i]) for i, k in pairs}
    middle = np.median(list(errors.values()))
    oracle = [
        stats.ttest_rel(losses[:, -1], losses[:, i]).statistic * np.sqrt(errors[i, 6] / middle)
        for i in range(6)
        if losses[:, i].mean() - losses[:, :6].mean(axis=0).min()
        <= 2.5 * stats.sem(losses[:, i] - losses[:, losses[:, :6].mean(axis=0).argmin()])
    ]
    assert 1 < len(oracle) <= 6
    assert _look(losses).t == pytest.approx(max(oracle), rel=1e-3)


def test_a_look_that_is_clearly_worse_is_no_rival_for_the_best() -> None:
    """Three looks far above the best one leave the boundary where it is without them."""
    late = _path(np.random.default_rng(21), n=300, looks=6, best=1)
    before = late[:, :1] + 3.0 + np.random.default_rng(22).normal(size=(300, 3))
    whole = _look(np.column_stack([before, late]), times=np.linspace(0.2, 1.0, 9))
    assert whole.boundary == pytest.approx(
        _look(late, times=np.linspace(0.5, 1.0, 6)).boundary, rel=0.15
    )


def test_two_looks_are_a_plain_one_sided_paired_test() -> None:
    losses = _path(np.random.default_rng(7), n=30, looks=2, best=1)
    result = _look(losses, resamples=40_000)
    assert result.boundary == pytest.approx(stats.t.ppf(0.95, 29), abs=0.03)


@pytest.mark.slow
def test_the_interval_of_the_rise_holds_although_the_best_was_chosen() -> None:
    rng, runs, held, naive = np.random.default_rng(8), 200, 0, 0
    for i in range(runs):
        losses = _path(rng, looks=15, best=1)
        result = _look(losses, seed=i, resamples=500)
        held += result.low <= 0.0 <= result.high
        gap = losses[:, -1] - losses[:, result.best]
        naive += gap.mean() <= 1.96 * gap.std(ddof=1) / np.sqrt(len(gap))
    assert held / runs >= 0.94
    assert naive / runs < 0.95


@pytest.mark.slow
def test_the_interval_holds_a_true_rise() -> None:
    rng, runs = np.random.default_rng(9), 200
    unit = np.sqrt(7 * 2 * np.exp(0.5) / 60)
    results = [_look(_path(rng, rise=3.0), seed=i, resamples=500) for i in range(runs)]
    assert np.mean([r.low <= 3.0 * unit <= r.high for r in results]) >= 0.93
    assert np.mean([r.low > 0 for r in results]) > 0.3


def test_copies_of_rows_are_not_new_evidence_when_grouped() -> None:
    losses = _path(np.random.default_rng(10), n=30, rise=2.0)
    copies, groups = np.repeat(losses, 20, axis=0), np.repeat(np.arange(30), 20)
    single, grouped = _look(losses), _look(copies, groups=groups)
    assert (grouped.t, grouped.n) == (pytest.approx(single.t), 30)
    assert _look(copies).t > 3 * grouped.t


def test_what_rows_share_does_not_matter() -> None:
    losses = _path(np.random.default_rng(11), rise=2.0)
    moved = losses + 100 * np.random.default_rng(12).random((60, 1))
    assert _look(moved).t == pytest.approx(_look(losses).t)
    assert _look(moved).boundary == pytest.approx(_look(losses).boundary, abs=1e-4)


def test_rows_that_all_rise_alike_are_certain_and_equal_looks_are_nothing() -> None:
    same = np.repeat(np.random.default_rng(0).random((50, 1)), 4, axis=1)
    assert (_look(same).t, _look(same).alarm_at) == (0.0, None)
    same[:, 3] += 0.1
    assert (_look(same).t, _look(same).alarm_at, _look(same).low) == (np.inf, 3, pytest.approx(0.1))


def test_times_replace_the_count_of_looks() -> None:
    losses = _path(np.random.default_rng(13), looks=6)
    late = _look(losses, times=np.array([0.5, 0.6, 0.7, 0.8, 0.9, 1.0]))
    assert late.error_spent == pytest.approx(_look(losses).error_spent) == 0.05
    assert _look(losses, planned=60).error_spent == pytest.approx(0.05 * 0.1**5)


def test_a_rise_beyond_doubt_is_seen_in_the_first_tenth_of_a_run() -> None:
    rng = np.random.default_rng(15)
    losses = _path(rng, n=100, looks=8, best=3)
    losses[:, 5:] += 4.0 * losses.std()
    assert _look(losses, planned=100).alarm_at == 5
    flat = [_look(_path(rng, n=100, looks=8, best=3), planned=100).alarm_at for _ in range(100)]
    assert flat == [None] * 100


def test_a_plan_spends_by_its_steps_and_a_longer_one_changes_no_earlier_look() -> None:
    steps = [0, 100, 300, 600, 800, 1000]
    plain = times_by_plan(steps, [1000] * 6)
    assert plain == pytest.approx(np.array(steps) / 1000)
    longer = times_by_plan(steps, [1000] * 3 + [3000] * 3)
    assert longer[:3].tolist() == plain[:3].tolist()
    assert np.all(np.diff(longer) > 0)
    assert times_by_plan([*steps, 3000], [1000] * 3 + [3000] * 4)[-1] == pytest.approx(1.0)


def test_a_plan_after_a_completed_one_has_error_of_its_own() -> None:
    times = times_by_plan([500, 1000, 1200, 1500, 2000], [1000, 1000, 2000, 2000, 2000])
    assert times[:2].tolist() == [0.5, 1.0]
    assert times[-1] ** POWER == pytest.approx(2.0)
    beyond = times_by_plan([500, 1000, 1100], [1000] * 3)
    assert beyond.tolist() == [0.5, 1.0, 1.0]


def test_without_a_plan_most_of_the_error_is_left_for_later() -> None:
    times = times_without_plan(40)
    assert times[:3].max() < 0.1
    assert times[9] == pytest.approx(0.5)
    assert times[-1] < 1
    assert times_without_plan(5).tolist() == times[:5].tolist()


def test_the_skew_of_differences_is_scipys_and_lowers_only_a_t_above_0() -> None:
    rng = np.random.default_rng(16)
    atoms = np.column_stack([rng.normal(size=60), -rng.exponential(size=60), rng.random(60)])
    for i, k in itertools.permutations(range(3), 2):
        assert _skews(atoms)[k, i] == pytest.approx(stats.skew(atoms[:, k] - atoms[:, i]))
    t = np.array([-3.0, 0.5, 2.0, 4.0])
    assert lower_for_skew(t, np.full(4, 1.0), 50).tolist() == t.tolist()
    lower = lower_for_skew(t, np.full(4, -1.5), 50)
    assert lower[0] == -3.0
    assert np.all(lower[1:] < t[1:])
    assert np.all(np.diff(lower) > 0)


def test_differences_with_a_tail_downwards_raise_fewer_alarms_than_their_plain_t() -> None:
    """The plain t of one look against another, far above its level, beside the lowered one."""
    rng, runs, n = np.random.default_rng(17), 3000, 50
    gaps = 1.0 - rng.exponential(size=(runs, n))
    t = gaps.mean(axis=1) / gaps.std(axis=1, ddof=1) * np.sqrt(n)
    lowered = lower_for_skew(t, stats.skew(gaps, axis=1), n)
    line = stats.t.ppf(0.99, n - 1)
    assert np.mean(t > line) > 0.02
    assert np.mean(lowered > line) < 0.6 * np.mean(t > line)


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (50, 1)])
def test_too_little_raises_no_alarm(shape: tuple[int, int]) -> None:
    result = _look(np.ones(shape))
    assert np.isnan(result.p_value)
    assert result.alarm_at is None


def test_a_loss_that_is_not_finite_cannot_be_judged() -> None:
    losses = _path(np.random.default_rng(14))
    losses[3, 3] = np.nan
    assert np.isnan(_look(losses).p_value)
    assert _look(losses).alarm_at is None


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"alpha": 0.0}, "between 0 and 1"),
        ({"power": 0.0}, "positive"),
        ({"times": np.array([0.1, 0.3, 0.2, 0.3])}, "must not be negative or fall"),
        ({"times": np.array([0.1, 0.2, 0.3])}, "one per evaluation"),
    ],
)
def test_wrong_settings_are_refused(others: dict[str, object], words: str) -> None:
    with pytest.raises(Defect, match=words):
        _look(_path(np.random.default_rng(0), looks=4, best=1), **others)  # type: ignore[arg-type]
