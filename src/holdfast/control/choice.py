"""Which checkpoint of a run to keep, a pure function of its evaluations in one of four ways; and
what choosing among them adds to its score.

| rule | keeps | used by |
|---|---|---|
| ``lowest_calibrated`` | the lowest calibrated validation loss | ``Guard``, and every plan below |
| ``newest_unless_worse`` | the newest not clearly worse than that | where it was better |
| ``lowest`` | the smallest value of a criterion | a metric of the user's choice |
| ``last`` | the last | experiments |

The *calibrated* loss is the validation loss after that checkpoint's best temperature; without
logits it is the loss.

The lowest of many noisy means is often an early checkpoint that was lucky on a few validation rows,
while under a falling learning rate the later ones are better on new rows (winner's curse). Where
that was measured (``benchmarks/kept_state.py``, sets left out in turn), a later checkpoint stands
in for the lowest one unless a paired test on the validation rows says that it is worse. Anywhere
else the lowest is kept.

The first two never keep a checkpoint of which another has both a lower calibrated loss and more
correct validation rows: such a one *dominates* it. The order is strict and transitive, and a new
checkpoint is taken where it dominates the kept one and never where an earlier one dominates it; so
nothing dominates the kept one, though a run holds the weights of the newest and the kept one alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from holdfast.core.records import Floats, Snapshot
from holdfast.core.seeds import generator
from holdfast.monitor.evidence import stack_correct, validation_losses
from holdfast.stats.paired_tests import paired_t

# Of a checkpoint that is called worse than the lowest; and of one that a trial must be better than
# (benchmarks/kept_state.py).
WORSE_LEVEL = 0.2
BETTER_LEVEL = 0.1
# Of a later checkpoint than a linear probe over which such runs were measured to gain.
PROBE_LEVEL = 0.02
Choose = Callable[[Sequence[Snapshot]], int]


def lowest(criterion: Callable[[Snapshot], float]) -> Choose:
    """Keep the state with the smallest ``criterion``, the earlier on a tie.

    A criterion that is not a number counts as the worst; where all are, the newest state is kept.
    """

    def choose(history: Sequence[Snapshot]) -> int:
        values = np.array([criterion(snapshot) for snapshot in history])
        values = np.where(np.isfinite(values), values, np.inf)
        return int(values.argmin()) if np.isfinite(values).any() else len(history) - 1

    return choose


def last(history: Sequence[Snapshot]) -> int:
    """Keep the newest state, whatever it is worth: for experiments."""
    return len(history) - 1


def lowest_calibrated(history: Sequence[Snapshot]) -> int:
    """Keep the checkpoint with the lowest calibrated validation loss, the earlier on a tie; of
    generators, and without logits, the lowest loss.

    One whose loss is not a number is the worst; where all are (no validation rows), the newest is
    kept.
    """
    return lowest(lambda snapshot: snapshot.refined_loss)(history)


def newest_unless_worse(history: Sequence[Snapshot], *, gains: bool = False) -> int:
    """Keep the newest checkpoint whose calibrated validation loss is not significantly above the
    lowest so far, and which no other dominates.

    A checkpoint is worse when the one-sided paired t-test against the lowest one up to it gives
    p < 0.2: one that is kept wrongly costs as much as one that is dropped wrongly. The comparison
    is always with the lowest, so small losses of ground cannot add up. With one validation row a
    checkpoint is worse when its loss is higher; with none, the newest is kept; one with a loss that
    is not a number is never kept while there is another.

    With ``gains`` the first checkpoint, a linear probe that such runs were measured to leave
    behind, is not among the lowest: a later one gives way to it at p < 0.02, or where the probe
    dominates it.
    """
    losses = validation_losses(history)
    if not losses.size:
        return len(history) - 1
    return newest_unless_worse_place(losses, correct_rows(history), gains=gains)


def newest_unless_worse_place(
    losses: Floats, correct: Floats | None, *, gains: bool = False
) -> int:
    """``newest_unless_worse`` of calibrated losses [rows, checkpoints] and the number of correct
    rows [checkpoints], where it is known."""
    means = _means(losses)
    best_place = lowest_place = 0
    for place in range(1, len(means)):
        lowest_place = (
            place
            if means[place] < means[lowest_place] or (gains and not lowest_place)
            else lowest_place
        )
        now = losses[:, place]
        if not np.isfinite(means[place]) or is_dominated(means, correct, place):
            continue
        worse = is_worse(now, losses[:, lowest_place])
        lost = gains and np.isfinite(means[0]) and _is_above(now, losses[:, 0], PROBE_LEVEL)
        if dominates(means, correct, place, best_place) or not (worse or lost):
            best_place = place
    return best_place


def correct_rows(history: Sequence[Snapshot]) -> Floats | None:
    """The number of correct validation rows of each checkpoint; ``None`` unless all of them know
    theirs."""
    known = [one.valid_correct for one in history if one.valid_correct is not None]
    if len(known) < len(history):
        return None
    return np.array([float(np.sum(one)) for one in known])


def dominates(means: Floats, correct: Floats | None, one: int, other: int) -> bool:
    """Whether a checkpoint has both a lower loss and more correct rows than another."""
    if correct is None:
        return False
    return bool(means[one] < means[other] and correct[one] > correct[other])


def is_dominated(means: Floats, correct: Floats | None, place: int) -> bool:
    """Whether a checkpoint before ``place`` dominates the one there."""
    return any(dominates(means, correct, before, place) for before in range(place))


def _means(losses: Floats) -> Floats:
    means = losses.mean(axis=0)
    return np.where(np.isfinite(means), means, np.inf)


def choose_across_branches(
    history: Sequence[Snapshot], choose: Choose, reference: Floats | None = None
) -> int:
    """The checkpoint to keep of a run that went back and tried something: by ``choose`` of the
    evaluations of its first branch; of each later one only a checkpoint that is better than the one
    kept before it, by the one-sided paired t-test at 10 %, and not worse than the best of its
    branch; or one that dominates the kept one. None that an earlier one dominates.

    ``reference`` [n] are the losses of a checkpoint that one of the last branch must be better than
    too: the one that was kept when the branch was begun, which may lie behind its fork.
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
    """Whether the losses ``now`` [n] are above ``before`` [n], row by row, by a one-sided paired
    t-test at 20 %."""
    return _is_above(now, before, WORSE_LEVEL)


def is_better(now: Floats, before: Floats) -> bool:
    """Whether the losses ``now`` [n] are below ``before`` [n], row by row, by a one-sided paired
    t-test at 10 %."""
    return _is_above(before, now, BETTER_LEVEL)


def _is_above(high: Floats, low: Floats, level: float) -> bool:
    difference = high - low
    # Without a spread there is no t-test: the sign decides.
    if len(difference) < 2 or np.ptp(difference) == 0:
        return bool(difference.mean() > 0)
    return paired_t(high, low).above > 1 - level


def explain_choice(history: Sequence[Snapshot], best_place: int, *, gains: bool = False) -> str:
    """Why the checkpoint at the place ``best_place`` is kept, in a clause, with its figures and
    those of the last evaluation and of the lowest losses where they are others."""
    rows = history[best_place].valid_losses.size
    if not rows:
        return "there are no validation rows to choose by"
    calibrated = all(one.valid_logits is not None for one in history)
    name = "calibrated validation loss" if calibrated else "validation loss"
    best = lowest_calibrated(history)
    if best_place == best:
        explanation = f"its {name} is the lowest"
    elif gains and not best:
        explanation = (
            f"the linear probe has a lower {name}, but on {rows} validation rows the difference is "
            f"not significant (paired t-test; that takes p < {PROBE_LEVEL:g}), and this recipe was "
            "measured to improve on its probe"
        )
    elif history[best].branch.number != history[best_place].branch.number:
        explanation = (
            "a checkpoint of another trial replaces it only where it is better by a significant "
            f"amount (paired t-test on {rows} validation rows; that takes p < {BETTER_LEVEL:g})"
        )
    else:
        explanation = (
            f"it is the newest checkpoint whose {name} is not above the lowest by a significant "
            f"amount (paired t-test on {rows} validation rows; that takes p < {WORSE_LEVEL:g})"
        )
        if correct_rows(history) is not None:
            explanation += ", and which no other beats in both loss and accuracy"
    others = {len(history) - 1: "the last evaluation"}
    if calibrated:
        others[lowest(lambda one: one.valid_loss)(history)] = "the lowest raw loss"
    others[best] = f"the lowest {name}"
    shown = [
        f"{what}, step {history[place].step}: {checkpoint_figures(history[place])}"
        for place, what in sorted(others.items())
        if place != best_place
    ]
    return "; ".join([f"{explanation}: {checkpoint_figures(history[best_place])}", *shown])


def checkpoint_figures(snapshot: Snapshot) -> str:
    """The validation figures of a checkpoint: its calibrated loss with the raw one behind it, and
    its accuracy, as far as it has them."""
    accuracy = snapshot.valid_metrics.get("accuracy")
    correct = "" if accuracy is None else f"accuracy {100 * accuracy:.1f} %"
    raw = "" if snapshot.valid_logits is None else f"raw loss {snapshot.valid_loss:.4g}"
    details = ", ".join(filter(None, (raw, correct)))
    return f"{snapshot.refined_loss:.4g} ({details})" if details else f"{snapshot.refined_loss:.4g}"


RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class Optimism:
    """By how much the chosen state looks better on the rows that chose it than it is, in the unit
    of ``metric`` (a share of right answers, or nats), with the 2.5 % and 97.5 % points of the
    draws; over ``looks`` looks at ``rows`` rows."""

    metric: Literal["accuracy", "loss"]
    value: float
    low: float
    high: float
    looks: int
    rows: int


def choice_optimism(evaluations: Sequence[Snapshot], seed: int = 0) -> Optimism | None:
    """What choosing among a run's looks adds to the score of the state that is chosen.

    The lowest of several noisy means is on average lower than what it measures. How much is worked
    out by drawing the validation rows again, with all looks of a row together (Efron 1983's
    optimism of a rule; the looks of one run move alike, so that twenty of them are far from twenty
    chances): in each draw the best look is chosen, and what it scores there is compared with what
    it scores on all rows.

    Of a choice among these looks, those of every branch, by the lowest mean loss after the best
    temperature; ``None`` with fewer than two looks or rows that are all numbers.

    The rule that a run uses keeps a later state unless it is worse: it chooses among fewer, so this
    is rather too much than too little.
    """
    finite_evaluations = [one for one in evaluations if np.isfinite(one.valid_losses).all()]
    if len(finite_evaluations) < 2 or finite_evaluations[0].valid_losses.size < 2:
        return None
    losses = validation_losses(finite_evaluations)
    hits = stack_correct([one.valid_correct for one in finite_evaluations])
    n, rng = len(losses), generator(seed, "optimism")
    weights = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    drawn = weights @ losses
    chosen, draws = drawn.argmin(axis=1), np.arange(RESAMPLES)
    if hits is None:
        gaps = losses.mean(axis=0)[chosen] - drawn[draws, chosen]
    else:
        right = hits.astype(np.float64)
        gaps = (weights @ right)[draws, chosen] - right.mean(axis=0)[chosen]
    low, high = np.quantile(gaps, [0.025, 0.975])
    name: Literal["accuracy", "loss"] = "loss" if hits is None else "accuracy"
    return Optimism(name, float(gaps.mean()), float(low), float(high), len(evaluations), n)
