"""Which checkpoint of a run to keep: four rules, each a pure function of the evaluations; and the
optimism of the choice.

| rule | keeps | used by |
|---|---|---|
| ``lowest_calibrated`` | the lowest calibrated validation loss | ``Guard``, and every plan below |
| ``newest_unless_worse`` | the newest that is not significantly worse | where it was better |
| ``lowest`` | the smallest value of a criterion | a metric of the user's choice |
| ``last`` | the last | experiments |

The *calibrated* loss is the validation loss after temperature scaling of that checkpoint; without
logits it is the plain loss.

The lowest of many noisy means is often an early checkpoint that was lucky on a few validation rows,
while under a falling learning rate the later ones are better on new rows (winner's curse). Where
this was measured (``benchmarks/kept_state.py``, leave-one-data-set-out), a later checkpoint
replaces the lowest one unless a paired test on the validation rows shows that it is worse.
Otherwise the lowest is kept.

The first two never keep a checkpoint if another one has both a lower calibrated loss and more
correct validation rows, that is, *dominates* it (a linear probe that such runs improve on does not
count). The order is strict and transitive. A new checkpoint is kept where it dominates the kept
one, and never where an earlier one dominates it. So nothing dominates the kept one, although a run
stores only the weights of the newest and the kept one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from holdfast.core.records import Floats, Snapshot
from holdfast.core.seeds import generator
from holdfast.monitor.evidence import (
    CorrectMetric,
    correct_metric,
    stack_correct,
    validation_losses,
)
from holdfast.stats.bootstrap import atom_contributions, fold_atoms
from holdfast.stats.paired_tests import paired_t

# Levels for calling a checkpoint worse than the lowest, and a trial's checkpoint better
# (benchmarks/kept_state.py).
WORSE_LEVEL = 0.2
BETTER_LEVEL = 0.1
# Level for keeping a linear probe instead of a later checkpoint; such runs usually improve on it.
PROBE_LEVEL = 0.02
# Nats by which a loss must be below that of guessing.
GUESSING = 1e-3
# Calibrated loss, in nats, below which checkpoints are not told apart.
SEPARATED = 1e-6
Choose = Callable[[Sequence[Snapshot]], int]


def lowest(criterion: Callable[[Snapshot], float]) -> Choose:
    """Keep the checkpoint with the smallest ``criterion``, the earlier on a tie.

    A criterion that is not finite counts as the worst; where all are, the newest is kept.
    """

    def choose(history: Sequence[Snapshot]) -> int:
        values = np.array([criterion(snapshot) for snapshot in history])
        values = np.where(np.isfinite(values), values, np.inf)
        return int(values.argmin()) if np.isfinite(values).any() else len(history) - 1

    return choose


def last(history: Sequence[Snapshot]) -> int:
    """Keep the newest checkpoint in any case: for experiments."""
    return len(history) - 1


def lowest_calibrated(history: Sequence[Snapshot]) -> int:
    """Keep the checkpoint with the lowest calibrated validation loss, the earlier on a tie; for
    generative models, and without logits, the lowest loss.

    Where every validation row is predicted correctly, a small enough temperature makes the
    calibrated loss zero, whatever the margins: among such checkpoints the lowest raw loss decides.

    A loss that is not finite counts as the worst; where all are (no validation rows), the newest
    checkpoint is kept.
    """
    place = lowest(lambda snapshot: snapshot.refined_loss)(history)
    if not is_separated(history[place]):
        return place
    return lowest(lambda one: one.valid_loss if is_separated(one) else math.inf)(history)


def is_separated(snapshot: Snapshot) -> bool:
    """Whether a temperature makes the loss of every validation row zero."""
    return snapshot.valid_logits is not None and snapshot.refined_loss < SEPARATED


def newest_unless_worse(history: Sequence[Snapshot], *, gains: bool = False) -> int:
    """Keep the newest checkpoint whose calibrated validation loss is not significantly above the
    lowest so far, and which no other dominates.

    A checkpoint is worse when the one-sided paired t-test against the lowest one up to it gives
    p < 0.2: keeping one wrongly costs as much as dropping one wrongly. The comparison is always
    with the lowest, so small increases cannot add up. With one validation row a checkpoint is worse
    when its loss is higher; with none, the newest is kept. A checkpoint with a loss that is not
    finite is never kept while there is another.

    With ``gains`` the first checkpoint, a linear probe that such runs were measured to improve on,
    neither is among the lowest nor dominates: it is kept only where p < 0.02 against each later
    one, and its loss is below that of guessing. One row of 18 more is no evidence: on 13 runs of
    five data sets, domination by the probe cost 0.8 points of accuracy on new rows
    (benchmarks/plans.py).
    """
    losses = validation_losses(history)
    if not losses.size:
        return len(history) - 1
    keep_probe = knows_classes(history[0])
    return newest_unless_worse_place(
        losses, correct_rows(history), gains=gains, keep_probe=keep_probe
    )


def knows_classes(snapshot: Snapshot) -> bool:
    """Whether a checkpoint's calibrated loss is below log K, that of guessing among K classes."""
    logits = snapshot.valid_logits
    return logits is None or snapshot.refined_loss < math.log(logits.shape[1]) - GUESSING


def newest_unless_worse_place(
    losses: Floats, correct: Floats | None, *, gains: bool = False, keep_probe: bool = True
) -> int:
    """``newest_unless_worse`` for calibrated losses [rows, checkpoints] and the number of correct
    rows [checkpoints], where it is known; ``keep_probe``: whether the first checkpoint may be kept
    with ``gains``."""
    means = _means(losses)
    best_place = lowest_place = 0
    for place in range(1, len(means)):
        lowest_place = (
            place
            if means[place] < means[lowest_place] or (gains and not lowest_place)
            else lowest_place
        )
        now = losses[:, place]
        if not np.isfinite(means[place]) or is_dominated(means, correct, place, int(gains)):
            continue
        worse = is_worse(now, losses[:, lowest_place])
        probe_counts = gains and keep_probe and np.isfinite(means[0])
        lost = probe_counts and _is_above(now, losses[:, 0], PROBE_LEVEL)
        if dominates(means, correct, place, best_place) or not (worse or lost):
            best_place = place
    return best_place


def correct_rows(history: Sequence[Snapshot]) -> Floats | None:
    """The number of correct validation rows of each checkpoint; ``None`` unless all are known."""
    known = [one.valid_correct for one in history if one.valid_correct is not None]
    if len(known) < len(history):
        return None
    return np.array([float(np.sum(one)) for one in known])


def dominates(means: Floats, correct: Floats | None, one: int, other: int) -> bool:
    """Whether a checkpoint has both a lower loss and more correct rows than another."""
    if correct is None:
        return False
    return bool(means[one] < means[other] and correct[one] > correct[other])


def is_dominated(means: Floats, correct: Floats | None, place: int, first: int = 0) -> bool:
    """Whether a checkpoint from ``first`` on and before ``place`` dominates the one there."""
    return any(dominates(means, correct, before, place) for before in range(first, place))


def _means(losses: Floats) -> Floats:
    means = losses.mean(axis=0)
    return np.where(np.isfinite(means), means, np.inf)


def choose_across_branches(
    history: Sequence[Snapshot], choose: Choose, reference: Floats | None = None
) -> int:
    """The index of the checkpoint to keep in a run that went back and tried something: by
    ``choose`` among the evaluations of its first branch. Each later branch adds only a checkpoint
    that is better than the one kept before it, by the one-sided paired t-test at 10 %, and not
    worse than the best of its branch; or one that dominates the kept one. No checkpoint is kept
    that an earlier one dominates.

    ``reference`` [n] are the losses of a checkpoint that one of the last branch must also beat: the
    one that was kept when the branch began, which may be later than its fork.
    """
    branch_numbers = [snapshot.branch.number for snapshot in history]
    first = next(
        (i for i, one in enumerate(branch_numbers) if one != branch_numbers[0]), len(branch_numbers)
    )
    best_place = choose(history[:first])
    if first == len(history) or not history[-1].valid_losses.size:
        return best_place
    losses = validation_losses(history)
    means, correct, branch_start, best_before = _means(losses), correct_rows(history), 0, best_place
    for place in range(first, len(history)):
        if branch_numbers[place] != branch_numbers[place - 1]:
            branch_start, best_before = place, best_place
        losses_now = losses[:, place]
        if not np.isfinite(losses_now).all() or is_dominated(means, correct, place):
            continue
        is_last_branch = branch_numbers[place] == branch_numbers[-1]
        if is_last_branch and reference is not None and not _beats(losses_now, reference):
            continue
        lowest = losses[:, branch_start + int(means[branch_start : place + 1].argmin())]
        chosen_by_rule = choose([history[best_before], history[place]]) == 1
        is_better_choice = (
            chosen_by_rule
            and _beats(losses_now, losses[:, best_before])
            and not is_worse(losses_now, lowest)
        )
        if is_better_choice or dominates(means, correct, place, best_place):
            best_place = place
    return best_place


def _beats(losses: Floats, reference: Floats) -> bool:
    return not np.isfinite(reference).all() or is_better(losses, reference)


def is_worse(now: Floats, before: Floats) -> bool:
    """Whether the losses ``now`` [n] are above ``before`` [n], by a one-sided paired t-test at
    20 %."""
    return _is_above(now, before, WORSE_LEVEL)


def is_better(now: Floats, before: Floats) -> bool:
    """Whether the losses ``now`` [n] are below ``before`` [n], by a one-sided paired t-test at
    10 %."""
    return _is_above(before, now, BETTER_LEVEL)


def _is_above(high: Floats, low: Floats, level: float) -> bool:
    difference = high - low
    # Without variance there is no t-test: the sign decides.
    if len(difference) < 2 or np.ptp(difference) == 0:
        return bool(difference.mean() > 0)
    return paired_t(high, low).above > 1 - level


def explain_choice(history: Sequence[Snapshot], best_place: int, *, gains: bool = False) -> str:
    """Why the checkpoint at ``best_place`` is kept, as a clause with its figures and those of the
    last evaluation and of the lowest losses, where they differ."""
    rows = history[best_place].valid_losses.size
    if not rows:
        return "there are no validation rows to choose by"
    calibrated = all(one.valid_logits is not None for one in history)
    name = "calibrated validation loss" if calibrated else "validation loss"
    best = lowest_calibrated(history)
    if best_place == best and sum(map(is_separated, history)) > 1:
        explanation = (
            "several checkpoints predict every validation row correctly with a calibrated loss "
            "near zero; of these it has the lowest raw loss"
        )
    elif best_place == best:
        explanation = f"its {name} is the lowest"
    elif gains and not best:
        no_evidence = (
            f"on {rows} validation rows at least one later checkpoint is not significantly worse "
            f"(paired t-test, threshold p < {PROBE_LEVEL:g})"
            if knows_classes(history[0])
            else "that loss is no lower than guessing gives"
        )
        explanation = (
            f"the linear probe has the lowest {name}, but {no_evidence}, and in benchmarks runs "
            "with this recipe improved on their linear probe"
        )
    elif history[best].branch.number != history[best_place].branch.number:
        explanation = (
            "a checkpoint of another trial replaces it only if it is significantly better "
            f"(paired t-test on {rows} validation rows, threshold p < {BETTER_LEVEL:g})"
        )
    else:
        explanation = (
            f"it is the newest checkpoint whose {name} is not significantly above the lowest "
            f"(paired t-test on {rows} validation rows, threshold p < {WORSE_LEVEL:g})"
        )
        correct = correct_rows(history)
        means = np.array([one.refined_loss for one in history])
        if correct is not None and not is_dominated(means, correct, best_place):
            explanation += ", and no other checkpoint beats it in both loss and accuracy"
    others = {len(history) - 1: "the last evaluation"}
    if calibrated:
        others[lowest(lambda one: one.valid_loss)(history)] = "the lowest raw loss"
    others[best] = f"the lowest {name}"
    shown = [
        f"step {history[place].step} ({what}): {checkpoint_figures(history[place])}"
        for place, what in sorted(others.items())
        if place != best_place
    ]
    return "; ".join([f"{explanation}: {checkpoint_figures(history[best_place])}", *shown])


def checkpoint_figures(snapshot: Snapshot) -> str:
    """The validation figures of a checkpoint: its calibrated loss, then its raw loss and its
    accuracy where they are known."""
    accuracy = snapshot.valid_metrics.get("accuracy")
    figures = [f"{snapshot.refined_loss:.4g}"]
    if snapshot.valid_logits is not None:
        figures = [f"calibrated loss {figures[0]}", f"raw loss {snapshot.valid_loss:.4g}"]
    if accuracy is not None:
        figures.append(f"accuracy {100 * accuracy:.1f} %")
    return ", ".join(figures)


RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class Optimism:
    """By how much the chosen checkpoint looks better on the rows that chose it than it is, in the
    unit of ``metric`` (accuracy as a share, or nats), with the 2.5 % and 97.5 % points of the
    draws; over ``looks`` evaluations of ``rows`` rows."""

    metric: CorrectMetric | Literal["loss"]
    value: float
    low: float
    high: float
    looks: int
    rows: int


def choice_optimism(evaluations: Sequence[Snapshot], seed: int = 0) -> Optimism | None:
    """The optimism of choosing among a run's evaluations: how much it adds to the score of the
    chosen checkpoint.

    The lowest of several noisy means is on average lower than its expected value. The amount is
    estimated by resampling the validation rows, with all evaluations of a row together (Efron
    1983's optimism of a rule; the evaluations of one run are correlated, so twenty of them are far
    from twenty independent chances). In each draw the best evaluation is chosen, and its score
    there is compared with its score on all rows.

    The choice is among these evaluations, those of every branch, by the lowest mean calibrated
    loss; ``None`` with fewer than two evaluations, or without rows with finite losses.

    The rule that a run uses keeps a later checkpoint unless it is worse. It chooses among fewer, so
    this is rather an overestimate. Above 5,000 rows they are folded into 5,000 (``fold_atoms``).
    """
    finite_evaluations = [one for one in evaluations if np.isfinite(one.valid_losses).all()]
    if len(finite_evaluations) < 2 or finite_evaluations[0].valid_losses.size < 2:
        return None
    losses = validation_losses(finite_evaluations)
    hits = stack_correct([one.valid_correct for one in finite_evaluations])
    rows = len(losses)
    codes, n = fold_atoms(np.arange(rows), rows)
    groups = codes if n < rows else None
    losses = atom_contributions(losses, groups)
    rng = generator(seed, "optimism")
    weights = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    drawn = weights @ losses
    chosen, draws = drawn.argmin(axis=1), np.arange(RESAMPLES)
    if hits is None:
        gaps = losses.mean(axis=0)[chosen] - drawn[draws, chosen]
    else:
        right = atom_contributions(hits.astype(np.float64), groups)
        gaps = (weights @ right)[draws, chosen] - right.mean(axis=0)[chosen]
    low, high = np.quantile(gaps, [0.025, 0.975])
    metric = "loss" if hits is None else correct_metric(finite_evaluations[-1])
    return Optimism(metric, float(gaps.mean()), float(low), float(high), len(evaluations), rows)
