"""Which state is kept: tables of courses in, the place of the kept state out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from holdfast.control.choice import (
    BETTER,
    LOST,
    WORSE,
    is_better,
    is_worse,
    last,
    lowest,
    newest_unless_worse,
    of_branches,
    reason,
)
from holdfast.core.records import Branch, Snapshot


def snapshot(step: int, losses: np.ndarray) -> Snapshot:
    empty = np.zeros(0)
    return Snapshot(
        step=step,
        epoch=float(step),
        examples_seen=step,
        phase="finetune",
        train_losses=empty,
        valid_losses=np.asarray(losses, dtype=float),
        train_metrics={},
        valid_metrics={},
        refined_loss=float(np.mean(losses)) if len(losses) else math.nan,
        temperature=1.0,
        learning_rate=1e-4,
        gradient_norm=None,
        relative_update=None,
        distance=None,
        seconds=0.0,
    )


def course(*means: float, rows: int = 50, noise: float = 0.0) -> list[Snapshot]:
    rng = np.random.default_rng(0)
    base = rng.exponential(1.0, rows)
    base -= base.mean()
    return [
        snapshot(i, base + mean + noise * rng.standard_normal(rows)) for i, mean in enumerate(means)
    ]


@pytest.mark.parametrize(
    ("means", "kept"),
    [
        ((1.0, 0.8, 0.9), 1),
        ((1.0, 1.0, 1.0), 0),
        ((math.nan, 0.8, math.nan), 1),
        ((math.nan, math.nan), 1),
    ],
)
def test_lowest_keeps_the_smallest_and_the_earlier_on_a_tie(
    means: tuple[float, ...], kept: int
) -> None:
    history = [snapshot(i, np.array([mean])) for i, mean in enumerate(means)]
    assert lowest(lambda s: s.valid_loss)(history) == kept


def test_a_later_state_within_the_noise_stands_in_for_the_lowest() -> None:
    assert newest_unless_worse(course(1.0, 0.50, 0.51, 0.50, 0.52, noise=0.5)) == 4


def test_a_later_state_that_is_clearly_worse_does_not() -> None:
    assert newest_unless_worse(course(1.0, 0.50, 0.51, 0.9, 1.0, noise=0.1)) == 2


def test_small_losses_of_ground_do_not_add_up() -> None:
    """Each state is within the noise of the one before, but the last is far above the lowest."""
    means = [0.5 + 0.02 * i for i in range(20)]
    kept = newest_unless_worse(course(*means, noise=0.1))
    assert 0 < kept < 10


def test_a_loss_that_is_not_a_number_is_never_kept() -> None:
    history = [*course(1.0, 0.5), snapshot(2, np.full(50, math.nan))]
    assert newest_unless_worse(history) == 1


def test_without_validation_rows_the_newest_is_kept() -> None:
    assert newest_unless_worse([snapshot(i, np.zeros(0)) for i in range(3)]) == 2


def test_with_one_row_a_higher_loss_is_worse() -> None:
    assert newest_unless_worse([snapshot(0, np.array([0.5])), snapshot(1, np.array([0.6]))]) == 0
    assert newest_unless_worse([snapshot(0, np.array([0.5])), snapshot(1, np.array([0.4]))]) == 1


def test_the_choice_is_always_the_newest_or_the_one_kept_before() -> None:
    """The loop holds no other state."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        history = course(*rng.uniform(0.4, 0.8, 12), rows=20, noise=0.3)
        kept = [newest_unless_worse(history[: i + 1]) for i in range(len(history))]
        assert all(now == i or now == kept[i - 1] for i, now in enumerate(kept) if i)


def test_a_state_is_called_worse_in_one_tie_of_five() -> None:
    rng = np.random.default_rng(2)
    calls = [is_worse(*rng.standard_normal((2, 30))) for _ in range(2000)]
    assert 0.17 < np.mean(calls) < 0.23


@pytest.mark.parametrize("n", [2, 5, 40])
def test_it_is_the_one_sided_paired_t_test_of_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(200):
        now, before = rng.gumbel(0.4, size=n), rng.gumbel(size=n)
        expected = stats.ttest_rel(now, before, alternative="greater").pvalue < WORSE
        assert is_worse(now, before) == expected


def proven(history: list[Snapshot]) -> int:
    return newest_unless_worse(history, prove=True)


@pytest.mark.parametrize(
    ("rows", "gain", "kept"),
    [
        # A spread of 0.5 nats a row: 11 rows tell 0.3 nats from nothing, 400 rows 0.05.
        (11, 0.02, 0),
        (11, 0.6, 1),
        (400, 0.0, 0),
        (400, 0.1, 1),
        (400, -0.1, 0),
    ],
)
def test_a_later_state_takes_the_probes_place_where_the_rows_can_tell(
    rows: int, gain: float, kept: int
) -> None:
    rng = np.random.default_rng(3)
    probe = rng.exponential(0.6, rows)
    noise = rng.standard_normal(rows)
    noise = 0.5 * (noise - noise.mean()) / noise.std()
    history = [snapshot(0, probe), snapshot(1, probe - gain + noise)]
    assert proven(history) == kept
    p = stats.ttest_rel(history[1].valid_losses, probe, alternative="less").pvalue
    assert (p < BETTER) == bool(kept)


def test_eleven_rows_that_find_a_state_worse_on_average_keep_the_probe() -> None:
    """Nine rows a little better, two wrong with confidence: too few for the test against the
    lowest to call it worse, so that without a probe the newest stays."""
    probe = np.full(11, 0.5)
    later = np.where(np.arange(11) < 9, 0.3, 2.0)
    history = [snapshot(0, probe), *(snapshot(k, later) for k in (60, 120, 180))]
    assert newest_unless_worse(history) == 3
    assert proven(history) == 0


def test_among_states_better_than_the_probe_the_newest_not_worse_is_kept() -> None:
    assert proven(course(1.0, 0.50, 0.51, 0.50, 0.52, noise=0.3)) == 4
    assert proven(course(1.0, 0.50, 0.51, 0.9, 1.0, noise=0.1)) == 2


def test_without_any_gain_over_the_probe_it_is_kept_nine_times_in_ten() -> None:
    rng = np.random.default_rng(4)
    kept = [
        proven([snapshot(k, row) for k, row in enumerate(rng.standard_normal((2, 30)))])
        for _ in range(2000)
    ]
    assert 0.08 < np.mean(kept) < 0.12


def test_the_probe_rule_also_keeps_the_newest_or_the_one_kept_before() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        history = course(*rng.uniform(0.4, 0.8, 12), rows=20, noise=0.3)
        kept = [proven(history[: i + 1]) for i in range(len(history))]
        assert all(now == i or now == kept[i - 1] for i, now in enumerate(kept) if i)


def test_a_probe_whose_loss_is_no_number_gives_way() -> None:
    broken = [snapshot(0, np.full(50, math.nan)), *course(1.0)]
    assert proven(broken) == gaining(broken) == 1


def gaining(history: list[Snapshot]) -> int:
    return newest_unless_worse(history, gains=True)


@pytest.mark.parametrize("seed", range(20))
def test_where_runs_gain_a_probe_is_kept_only_where_all_later_states_are_clearly_worse(
    seed: int,
) -> None:
    """Held against SciPy's tests: the newest state not worse (p < 0.2) than the lowest later one,
    among those that are not worse than the probe at p < 0.02."""
    rng = np.random.default_rng(seed)
    losses = rng.gumbel(rng.uniform(0.4, 1.6, 6), 1.0, (18, 6))
    losses[:, 0] = rng.gumbel(0.2, 1.0, 18)
    expected = 0
    for at in range(1, 6):
        low = 1 + int(losses[:, 1 : at + 1].mean(axis=0).argmin())
        p = [
            stats.ttest_rel(losses[:, at], losses[:, one], alternative="greater").pvalue
            for one in (low, 0)
        ]
        if (low == at or p[0] >= WORSE) and p[1] >= LOST:
            expected = at
    history = [snapshot(i, row) for i, row in enumerate(losses.T)]
    assert gaining(history) == expected
    kept = [gaining(history[: i + 1]) for i in range(6)]
    assert all(now == i or now == kept[i - 1] for i, now in enumerate(kept) if i)


def test_the_lucky_rows_of_a_probe_are_no_reason_where_runs_gain() -> None:
    """Three of eighteen rows got worse: p = 0.07 that all the later state is."""
    probe = np.full(18, 0.5)
    later = np.where(np.arange(18) < 3, 1.2, 0.5)
    history = [snapshot(0, probe), snapshot(1, later)]
    assert LOST < stats.ttest_rel(later, probe, alternative="greater").pvalue < WORSE
    assert (newest_unless_worse(history), gaining(history)) == (0, 1)
    told = reason(history, 1, gains=True)
    assert all(said in told for said in ("0.6167", "18 validation rows", "p < 0.02", "0.5"))
    assert "lowest later one" in reason([*history, snapshot(2, later + 0.01)], 2, gains=True)
    far = [snapshot(0, probe), snapshot(1, later + 1.0)]
    assert gaining(far) == 0
    assert "is the lowest" in reason(far, 0, gains=True)


@pytest.mark.parametrize("n", [2, 5, 40])
def test_better_is_the_one_sided_paired_t_test_of_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(200):
        now, before = rng.gumbel(-0.2, size=n), rng.gumbel(size=n)
        expected = stats.ttest_rel(now, before, alternative="less").pvalue < BETTER
        assert is_better(now, before) == expected


def test_answers_that_are_better_are_a_proof_where_confidence_hides_it() -> None:
    """Ten of forty rows newly right, none newly wrong, at a loss that a few sure errors raise."""
    probe = np.full(40, 0.7)
    later = np.where(np.arange(40) < 36, 0.5, 3.0)
    was, now = np.arange(40) < 20, np.arange(40) < 30
    history = [
        replace(snapshot(0, probe), valid_correct=was),
        replace(snapshot(1, later), valid_correct=now),
    ]
    assert stats.ttest_rel(later, probe, alternative="less").pvalue > BETTER
    assert stats.ttest_rel(now * 1.0, was * 1.0, alternative="greater").pvalue < BETTER
    assert proven(history) == 1
    assert proven([replace(s, valid_correct=None) for s in history]) == 0
    assert proven([history[0], replace(history[1], valid_correct=was)]) == 0


def test_last_keeps_the_newest_even_where_it_is_no_number() -> None:
    assert last([*course(0.5, 0.9), snapshot(2, np.full(50, math.nan))]) == 2


def test_the_reason_names_the_rows_and_both_losses() -> None:
    history = [snapshot(0, np.full(11, 0.5)), snapshot(1, np.full(11, 0.6))]
    told = reason(history, 0, prove=True)
    assert all(said in told for said in ("11 validation rows", "0.6", "0.5"))
    assert "lowest" in reason(course(1.0, 0.5), 1)
    assert "not above the lowest" in reason(course(1.0, 0.50, 0.60), 2)
    assert "no validation rows" in reason([snapshot(0, np.zeros(0))], 0)


@pytest.mark.parametrize("seed", range(5))
def test_ground_that_is_lost_in_steps_too_small_to_tell_is_lost_all_the_same(seed: int) -> None:
    """Every state is like the one before it; the comparison with the lowest is the oracle's."""
    rng = np.random.default_rng(seed)
    rows = rng.exponential(1.0, 200)
    means = [0.9, *(0.5 + 0.01 * i for i in range(40))]
    history = [
        snapshot(i, rows + mean + 0.1 * rng.standard_normal(200)) for i, mean in enumerate(means)
    ]
    losses = np.stack([s.valid_losses for s in history], axis=1)
    kept = 0
    for at in range(1, len(history)):
        best = int(losses[:, : at + 1].mean(axis=0).argmin())
        p = stats.ttest_rel(losses[:, at], losses[:, best], alternative="greater").pvalue
        kept = at if at == best or not p < WORSE else kept
    assert newest_unless_worse(history) == kept < 10


def branched(rows: list[tuple[int, int, np.ndarray]]) -> list[Snapshot]:
    """Looks of (step, branch, losses)."""
    forks = {0: Branch(), 1: Branch(1, 0, 2), 2: Branch(2, 1, 3)}
    return [replace(snapshot(step, losses), branch=forks[one]) for step, one, losses in rows]


def test_a_look_of_a_trial_is_kept_only_where_it_is_better_than_what_was_kept_before() -> None:
    """Beside SciPy's one-sided paired test, over a hundred small differences of both signs."""
    rng, kept = np.random.default_rng(3), []
    for gap in np.linspace(-0.2, 0.2, 100):
        before = rng.exponential(1.0, 40)
        now = before + gap + 0.3 * rng.standard_normal(40)
        history = branched([(0, 0, before + 1), (2, 0, before), (3, 1, now)])
        p_value = stats.ttest_rel(now, before, alternative="less").pvalue
        assert of_branches(history, newest_unless_worse) == (2 if p_value < BETTER else 1)
        kept.append(p_value < BETTER)
    assert 20 < sum(kept) < 60, "both happen"


def test_the_first_branch_is_chosen_from_as_ever() -> None:
    rng = np.random.default_rng(0)
    base = rng.exponential(1.0, 30)
    history = branched([(i, 0, base + 0.02 * rng.standard_normal(30)) for i in range(6)])
    for count in range(1, 7):
        part = history[:count]
        assert of_branches(part, newest_unless_worse) == newest_unless_worse(part)


def test_a_look_must_beat_a_state_behind_the_fork_too() -> None:
    """The run went back to its beginning; the best of what it left is the bar as well."""
    base = np.random.default_rng(1).exponential(1.0, 50)
    history = branched([(0, 0, base + 1.0), (3, 1, base + 0.5)])
    assert of_branches(history, newest_unless_worse) == 1
    assert of_branches(history, newest_unless_worse, base + 0.1) == 0
    assert of_branches(history, newest_unless_worse, base + 0.9) == 1
    assert of_branches(history, newest_unless_worse, np.full(50, np.nan)) == 1


def test_a_trial_on_a_trial_is_held_to_what_that_one_won() -> None:
    base = np.random.default_rng(2).exponential(1.0, 50)
    noise = 0.05 * np.random.default_rng(4).standard_normal(50)
    won = [(0, 0, base + 1.0), (2, 0, base + 0.9), (3, 1, base + 0.5)]
    assert of_branches(branched([*won, (4, 2, base + 0.7)]), newest_unless_worse) == 2
    assert of_branches(branched([*won, (4, 2, base + 0.5 + noise)]), newest_unless_worse) in (2, 3)
    assert of_branches(branched([*won, (4, 2, base + 0.3)]), newest_unless_worse) == 3
    broken = (4, 2, np.full(50, np.nan))
    assert of_branches(branched([*won, broken]), newest_unless_worse) == 2


def test_without_validation_rows_nothing_of_a_trial_is_kept() -> None:
    empty = np.zeros(0)
    assert of_branches(branched([(0, 0, empty), (2, 0, empty), (3, 1, empty)]), last) == 1
