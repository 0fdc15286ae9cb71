"""Which state is kept: tables of courses in, the place of the kept state out."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy import optimize, special, stats
from sklearn.metrics import log_loss

from holdfast.control.choice import (
    BETTER_LEVEL,
    PROBE_LEVEL,
    WORSE_LEVEL,
    Choose,
    choose_across_branches,
    explain_choice,
    is_better,
    is_worse,
    last,
    lowest,
    lowest_calibrated,
    newest_unless_worse,
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
        expected = stats.ttest_rel(now, before, alternative="greater").pvalue < WORSE_LEVEL
        assert is_worse(now, before) == expected


def test_a_probe_whose_loss_is_no_number_gives_way() -> None:
    broken = [snapshot(0, np.full(50, math.nan)), *course(1.0)]
    assert lowest_calibrated(broken) == gaining(broken) == 1


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
        if (low == at or p[0] >= WORSE_LEVEL) and p[1] >= PROBE_LEVEL:
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
    assert PROBE_LEVEL < stats.ttest_rel(later, probe, alternative="greater").pvalue < WORSE_LEVEL
    assert (newest_unless_worse(history), gaining(history)) == (0, 1)
    told = explain_choice(history, 1, gains=True)
    assert all(said in told for said in ("0.6167", "18 validation rows", "p < 0.02", "0.5"))
    far = [snapshot(0, probe), snapshot(1, later + 1.0)]
    assert gaining(far) == 0
    assert "is the lowest" in explain_choice(far, 0, gains=True)


def test_one_more_correct_row_of_a_probe_is_no_reason_where_runs_gain() -> None:
    """Sixteen of eighteen rows are right before any update, fifteen after, and the loss is lower
    before, but not significantly."""
    probe, later = np.full(18, 0.5), np.where(np.arange(18) < 2, 1.2, 0.5)
    history = [
        replace(snapshot(step, losses), valid_correct=np.arange(18) < right)
        for step, (losses, right) in enumerate([(probe, 16), (later, 15)])
    ]
    assert stats.ttest_rel(later, probe, alternative="greater").pvalue > PROBE_LEVEL
    assert (newest_unless_worse(history), gaining(history)) == (0, 1)
    told = explain_choice(history, 1, gains=True)
    assert "the linear probe has the lowest" in told
    assert "no other checkpoint" not in told
    # A later state still may not be dominated by another later one.
    history.append(replace(snapshot(2, later + 1e-3), valid_correct=np.arange(18) < 14))
    assert gaining(history) == 1


@pytest.mark.parametrize("known", [True, False])
def test_a_probe_that_only_guesses_is_kept_nowhere(known: bool) -> None:
    """Rows of a class that come in pairs with rows of the other: outside its fold a later state is
    clearly worse than guessing, and says nothing of new rows."""
    rng, labels = np.random.default_rng(0), np.arange(100) % 2
    noise = rng.standard_normal((100, 2))
    probe = evaluation(0, noise + (2.0 if known else -0.3) * np.eye(2)[labels], labels)
    later = evaluation(40, 3 * (0.2 * noise - np.eye(2)[labels]), labels)
    assert stats.ttest_rel(later.valid_losses, probe.valid_losses).pvalue < PROBE_LEVEL
    assert gaining([probe, later]) == (0 if known else 1)
    told = explain_choice([probe, later], 1, gains=True)
    assert ("no lower than guessing gives" in told) == (not known)


@pytest.mark.parametrize("n", [2, 5, 40])
def test_better_is_the_one_sided_paired_t_test_of_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(200):
        now, before = rng.gumbel(-0.2, size=n), rng.gumbel(size=n)
        expected = stats.ttest_rel(now, before, alternative="less").pvalue < BETTER_LEVEL
        assert is_better(now, before) == expected


def test_last_keeps_the_newest_even_where_it_is_no_number() -> None:
    assert last([*course(0.5, 0.9), snapshot(2, np.full(50, math.nan))]) == 2


def test_the_reason_names_the_figures_of_the_kept_and_of_the_others() -> None:
    assert "lowest" in explain_choice(course(1.0, 0.5), 1)
    told = explain_choice(course(1.0, 0.50, 0.60), 2)
    assert all(said in told for said in ("not significantly above", "50 validation rows", "0.6"))
    assert "step 1 (the lowest validation loss): 0.5" in told
    assert "no validation rows" in explain_choice([snapshot(0, np.zeros(0))], 0)
    # Of a classifier the raw loss and the accuracy too, of the last and of the lowest raw one.
    histories = (classified(np.random.default_rng(seed), evaluations=5) for seed in range(100))
    for history in histories:
        kept = lowest_calibrated(history)
        raw = min(range(5), key=lambda i: history[i].valid_loss)
        if len({kept, raw, 4}) == 3:
            break
    assert len({kept, raw, 4}) == 3
    told = explain_choice(history, kept)
    for place in (kept, raw, 4):
        look = history[place]
        shown = f"calibrated loss {look.refined_loss:.4g}, raw loss {look.valid_loss:.4g}"
        assert f"{shown}, accuracy {100 * look.valid_metrics['accuracy']:.1f} %" in told


def test_the_reason_is_that_of_the_rule_that_kept_the_checkpoint() -> None:
    rng = np.random.default_rng(0)
    base = rng.exponential(1.0, 40)
    looks = []
    for step, (mean, hits) in enumerate([(0.50, 30), (0.51, 33), (0.52, 31)]):
        losses = base - base.mean() + mean + 0.3 * rng.standard_normal(40)
        losses += mean - losses.mean()
        looks.append(replace(snapshot(step, losses), valid_correct=np.arange(40) < hits))
    # The newest is not significantly worse; the one before it beats it in both.
    assert newest_unless_worse(looks) == 1
    assert "no other checkpoint beats it in both loss and accuracy" in explain_choice(looks, 1)
    trial = branched(
        [(0, 0, base + 1.0), (2, 0, base), (3, 1, base - 0.01 + 0.3 * (base - base.mean()))]
    )
    assert trial[2].refined_loss < trial[1].refined_loss
    assert choose_across_branches(trial, lowest_calibrated) == 1
    told = explain_choice(trial, 1)
    assert "replaces it only if it is significantly better" in told
    assert f"p < {BETTER_LEVEL:g}" in told


def classified(rng: np.random.Generator, rows: int = 30, evaluations: int = 12) -> list[Snapshot]:
    """Evaluations of a classifier of three classes that wanders, its confidence growing."""
    labels = rng.integers(0, 3, rows)
    shared = rng.standard_normal((rows, 3))
    history = []
    for step in range(evaluations):
        logits = shared + rng.uniform(0.6, 1.2) * np.eye(3)[labels]
        logits += 0.4 * rng.standard_normal((rows, 3))
        history.append(evaluation(step, logits * rng.uniform(0.3, 4.0), labels))
    return history


def evaluation(step: int, logits: np.ndarray, labels: np.ndarray) -> Snapshot:
    """What a classifier's logits are worth, its temperature by SciPy."""
    rows = np.arange(len(labels))
    losses = special.logsumexp(logits, axis=1) - logits[rows, labels]
    correct = logits.argmax(axis=1) == labels

    def calibrated(log_t: float) -> float:
        cold = logits / np.exp(log_t)
        return float(np.mean(special.logsumexp(cold, axis=1) - cold[rows, labels]))

    found = optimize.minimize_scalar(
        calibrated, bounds=(np.log(0.01), np.log(100)), method="bounded"
    )
    return replace(
        snapshot(step, losses),
        valid_logits=logits,
        valid_correct=correct,
        valid_metrics={"accuracy": float(correct.mean())},
        temperature=float(np.exp(found.x)),
        refined_loss=float(found.fun),
    )


def dominated(history: list[Snapshot], place: int, by: list[Snapshot] | None = None) -> bool:
    """Whether another, of ``by`` if given, has both a lower calibrated loss and a higher
    accuracy."""
    return any(
        one.refined_loss < history[place].refined_loss
        and one.valid_metrics["accuracy"] > history[place].valid_metrics["accuracy"]
        for one in (history if by is None else by)
    )


RULES = {
    "lowest": lowest_calibrated,
    "newest": newest_unless_worse,
    "newest, gains": partial(newest_unless_worse, gains=True),
    "accuracy": lowest(lambda s: -s.valid_metrics["accuracy"] + 1e-6 * s.refined_loss),
}


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("branches", [0, 1, 2])
def test_a_checkpoint_with_a_higher_loss_and_a_lower_accuracy_than_another_is_never_kept(
    rule: Choose, branches: int
) -> None:
    """In random histories, of few rows and many, in one branch and in several, at each evaluation;
    and what is kept is always the newest or what was kept before."""
    rng, moved = np.random.default_rng(7), 0
    for _ in range(25):
        history = classified(rng, rows=int(rng.choice([6, 15, 60])))
        forks = sorted(rng.choice(np.arange(2, 11), branches, replace=False).tolist())
        marks = [sum(i >= fork for fork in forks) for i in range(len(history))]
        places = [Branch(n, n - 1, forks[n - 1]) if n else Branch() for n in marks]
        history = [replace(s, branch=b) for s, b in zip(history, places, strict=True)]
        kept = 0
        for count in range(1, len(history) + 1):
            part = history[:count]
            now = choose_across_branches(part, rule) if branches else rule(part)
            # Where runs gain over their linear probe, it counts only by the paired test.
            assert not dominated(part, now, part[1:] if rule is RULES["newest, gains"] else None)
            assert now in (kept, count - 1)
            moved, kept = moved + (now != kept), now
    assert moved > 20, "histories in which something happens"


def test_the_paired_test_by_itself_keeps_such_checkpoints() -> None:
    """Where no evaluation knows its correct rows there is nothing but the test, as there was for
    every run before: the histories above are some that need the order."""
    rng = np.random.default_rng(7)
    found = 0
    for _ in range(25):
        history = classified(rng, rows=int(rng.choice([6, 15, 60])))
        unknown = [replace(look, valid_correct=None) for look in history]
        found += dominated(history, newest_unless_worse(unknown))
    assert found > 3


def test_the_lowest_calibrated_loss_is_kept_not_the_newest_that_no_test_finds_worse() -> None:
    """The lowest by less than a paired test on 75 rows can tell."""
    rng = np.random.default_rng(3)
    told_apart = 0
    for _ in range(20):
        history = classified(rng, rows=75, evaluations=4)
        best = min(range(4), key=lambda i: history[i].refined_loss)
        assert lowest_calibrated(history) == best
        told_apart += newest_unless_worse(history) != best
    assert told_apart > 3, "histories in which the rules differ"


def test_of_equal_calibrated_losses_the_earlier_is_kept() -> None:
    """Twice the logits are the same after temperature scaling, whatever the raw loss says."""
    one = classified(np.random.default_rng(5), evaluations=1)[0]
    later = replace(one, step=1, valid_losses=one.valid_losses / 2)
    assert lowest_calibrated([one, later]) == 0
    assert lowest_calibrated([replace(one, refined_loss=math.nan), later]) == 1
    assert lowest_calibrated([replace(s, refined_loss=math.nan) for s in (one, later)]) == 1


def test_of_checkpoints_with_every_row_correct_the_lowest_raw_loss_is_kept() -> None:
    """A temperature near zero makes all of their calibrated losses zero, whatever their margins."""
    rng, labels = np.random.default_rng(1), np.arange(30) % 2
    noise = 0.3 * rng.uniform(-1, 1, (30, 2))
    history = [
        evaluation(step, noise + margin * np.eye(2)[labels], labels)
        for step, margin in enumerate([0.2, 1.0, 3.0, 2.0])
    ]
    assert history[0].refined_loss > 0.01 > history[1].refined_loss
    raw = [float(stats_loss(one)) for one in history]
    assert raw[3] > raw[2]
    kept = [lowest_calibrated(history[: n + 1]) for n in range(4)]
    assert kept == [0, 1, 2, 2]
    told = explain_choice(history, 2)
    assert "several checkpoints predict every validation row correctly" in told
    assert "of these it has the lowest raw loss" in told


def stats_loss(snapshot: Snapshot) -> float:
    """The cross-entropy by scikit-learn."""
    probabilities = special.softmax(snapshot.valid_logits, axis=1)
    return float(log_loss(np.arange(len(probabilities)) % 2, probabilities, labels=[0, 1]))


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
        kept = at if at == best or not p < WORSE_LEVEL else kept
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
        assert choose_across_branches(history, newest_unless_worse) == (
            2 if p_value < BETTER_LEVEL else 1
        )
        kept.append(p_value < BETTER_LEVEL)
    assert 20 < sum(kept) < 60, "both happen"


def test_the_first_branch_is_chosen_from_as_ever() -> None:
    rng = np.random.default_rng(0)
    base = rng.exponential(1.0, 30)
    history = branched([(i, 0, base + 0.02 * rng.standard_normal(30)) for i in range(6)])
    for count in range(1, 7):
        part = history[:count]
        assert choose_across_branches(part, newest_unless_worse) == newest_unless_worse(part)


def test_a_look_must_beat_a_state_behind_the_fork_too() -> None:
    """The run went back to its beginning; the best of what it left is the bar as well."""
    base = np.random.default_rng(1).exponential(1.0, 50)
    history = branched([(0, 0, base + 1.0), (3, 1, base + 0.5)])
    assert choose_across_branches(history, newest_unless_worse) == 1
    assert choose_across_branches(history, newest_unless_worse, base + 0.1) == 0
    assert choose_across_branches(history, newest_unless_worse, base + 0.9) == 1
    assert choose_across_branches(history, newest_unless_worse, np.full(50, np.nan)) == 1


def test_a_look_that_is_worse_than_another_of_its_trial_is_not_kept() -> None:
    base = np.random.default_rng(2).exponential(1.0, 50)
    looks = [(0, 0, base + 1.0), (3, 1, base + 0.5), (4, 1, base + 0.2), (5, 1, base + 0.4)]
    assert choose_across_branches(branched(looks), newest_unless_worse) == 2


def test_a_trial_on_a_trial_is_held_to_what_that_one_won() -> None:
    base = np.random.default_rng(2).exponential(1.0, 50)
    noise = 0.05 * np.random.default_rng(4).standard_normal(50)
    won = [(0, 0, base + 1.0), (2, 0, base + 0.9), (3, 1, base + 0.5)]
    assert choose_across_branches(branched([*won, (4, 2, base + 0.7)]), newest_unless_worse) == 2
    assert choose_across_branches(
        branched([*won, (4, 2, base + 0.5 + noise)]), newest_unless_worse
    ) in (2, 3)
    assert choose_across_branches(branched([*won, (4, 2, base + 0.3)]), newest_unless_worse) == 3
    broken = (4, 2, np.full(50, np.nan))
    assert choose_across_branches(branched([*won, broken]), newest_unless_worse) == 2


def test_without_validation_rows_nothing_of_a_trial_is_kept() -> None:
    empty = np.zeros(0)
    assert (
        choose_across_branches(branched([(0, 0, empty), (2, 0, empty), (3, 1, empty)]), last) == 1
    )
