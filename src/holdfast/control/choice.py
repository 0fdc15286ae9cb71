"""Which state of a run to keep: a pure function of the history, in one of three ways.

| rule | keeps | when |
|---|---|---|
| ``lowest`` | the state with the smallest criterion | a metric of the user's choice |
| ``newest_unless_worse`` | the newest state not clearly worse than the lowest | the default |
| ``last`` | the last state | experiments |

The lowest of 20 noisy means is often an early state that was lucky on a few validation rows, while
under a falling rate the later states are better on unseen rows (winner's curse). So a later state
stands in for the lowest one unless validation says, by a paired test, that it is worse.

A run that begins as a fitted linear probe has one state that is no lucky look: the probe was fitted
in closed form under a cross-validated penalty. Where nothing measured beforehand says that such a
run gains over its probe (``prove``), the burden of proof is the other way round: a later state is
kept only where the same rows say that it is better. On 11 rows that takes a large difference, on
200 a small one; the fewer the rows, the more the kept state is drawn to the probe. Where it has
been measured that such runs gain (``gains``), the probe is kept only where the rows say clearly
that every later state is worse than it: 18 rows that favour it by luck are no reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from holdfast.core.records import Floats, Snapshot
from holdfast.monitor.evidence import validation_losses
from holdfast.stats.student import paired_t

# Of a state that is called worse than the lowest; and, in either of two tests, better than the
# probe (benchmarks/kept_state.py).
WORSE = 0.2
BETTER = 0.1
# Of a later state than a probe over which such runs were measured to gain.
LOST = 0.02
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


def newest_unless_worse(
    history: Sequence[Snapshot], *, prove: bool = False, gains: bool = False
) -> int:
    """Keep the newest state whose validation loss is not significantly above the lowest so far.

    Losses are those after each snapshot's best temperature, row by row. A state is worse when the
    one-sided paired t-test against the lowest state up to it gives p < 0.2: a state that is kept
    wrongly costs as much as one that is dropped wrongly. The comparison is
    always with the lowest, so small losses of ground cannot add up. With one validation row a
    state is worse when its loss is higher; with none, the newest state is kept; a state with a loss
    that is not a number is never kept while there is another.

    With ``prove`` a later state must also be better than the first one, which is a fitted linear
    probe: by the same test at p < 0.1, of the losses or (where snapshots have them) of the rows
    that are right. Either is enough: confidence on a few rows may hide what the answers show.

    With ``gains`` the first state, a probe that such runs were measured to leave behind, is not
    among the lowest: a later one gives way to it only at p < 0.02.
    """
    losses, _ = validation_losses(history)
    if not losses.size:
        return len(history) - 1
    means = losses.mean(axis=0)
    means = np.where(np.isfinite(means), means, np.inf)
    kept = best = 0
    for state in range(1, len(history)):
        best = state if means[state] < means[best] or (gains and not best) else best
        now = losses[:, state]
        if not np.isfinite(means[state]) or is_worse(now, losses[:, best]):
            continue
        if gains and np.isfinite(means[0]) and _is_above(now, losses[:, 0], LOST):
            continue
        if not prove or _is_proven(history, losses, state):
            kept = state
    return kept


def of_branches(
    history: Sequence[Snapshot], choose: Choose, reference: Floats | None = None
) -> int:
    """The state to keep of a run that went back and tried something: by ``choose`` of the looks of
    its first branch; of each later one only a state that is better than the one kept before it, by
    the one-sided paired t-test at 10 %, and not worse than the best of its branch.

    ``reference`` [n] are the losses of a state that a look of the last branch must be better than
    too: the one that was kept when the branch was begun, which may lie behind its fork.
    """
    numbers = [look.branch.number for look in history]
    first = _length_of_first(numbers)
    kept = choose(history[:first])
    if first == len(history) or not history[-1].valid_losses.size:
        return kept
    losses, _ = validation_losses(history)
    means, begun, before = np.where(np.isfinite(m := losses.mean(axis=0)), m, np.inf), 0, kept
    for place in range(first, len(history)):
        if numbers[place] != numbers[place - 1]:
            begun, before = place, kept
        now = losses[:, place]
        bars = [losses[:, before]]
        if reference is not None and numbers[place] == numbers[-1]:
            bars.append(reference)
        lowest = losses[:, begun + int(means[begun : place + 1].argmin())]
        proven = np.isfinite(now).all() and all(_beats(now, bar) for bar in bars)
        wanted = choose([history[before], history[place]]) == 1
        if proven and wanted and not is_worse(now, lowest):
            kept = place
    return kept


def _length_of_first(numbers: Sequence[int]) -> int:
    return next((i for i, one in enumerate(numbers) if one != numbers[0]), len(numbers))


def _beats(now: Floats, bar: Floats) -> bool:
    return not np.isfinite(bar).all() or is_better(now, bar)


def is_worse(now: Floats, before: Floats) -> bool:
    """Whether the losses ``now`` [n] are above ``before`` [n], row by row, by a one-sided paired
    t-test at 20 %."""
    return _is_above(now, before, WORSE)


def is_better(now: Floats, before: Floats) -> bool:
    """Whether the losses ``now`` [n] are below ``before`` [n], row by row, by a one-sided paired
    t-test at 10 %."""
    return _is_above(before, now, BETTER)


def _is_proven(history: Sequence[Snapshot], losses: Floats, state: int) -> bool:
    """Whether ``state`` is better than the first, by its losses or by its answers."""
    if not np.isfinite(losses[:, 0]).all() or is_better(losses[:, state], losses[:, 0]):
        return True
    right = [history[place].valid_correct for place in (0, state)]
    if right[0] is None or right[1] is None:
        return False
    wrong = [1.0 - np.asarray(one, dtype=np.float64) for one in right if one is not None]
    return is_better(wrong[1], wrong[0])


def _is_above(high: Floats, low: Floats, level: float) -> bool:
    difference = high - low
    # Without a spread there is no t-test: the sign decides.
    if len(difference) < 2 or np.ptp(difference) == 0:
        return bool(difference.mean() > 0)
    return paired_t(high, low).above > 1 - level


def reason(
    history: Sequence[Snapshot], kept: int, *, prove: bool = False, gains: bool = False
) -> str:
    """Why ``newest_unless_worse`` keeps the state at the place ``kept``, in a clause."""
    losses, refined = validation_losses(history)
    rows = f"{len(losses)} validation row{'s' * (len(losses) != 1)}"
    if not len(losses):
        return "there are no validation rows to choose by"
    means = losses.mean(axis=0)
    means = np.where(np.isfinite(means), means, np.inf)
    name = "validation loss at its best temperature" if refined else "validation loss"
    later = 1 + int(means[1:].argmin()) if len(history) > 1 else 0
    if prove and not kept and later:
        return (
            f"{rows} cannot tell that a later state is better: its {name} is {means[0]:.4g}, the "
            f"lowest later one {means[later]:.4g} (p < {BETTER:g} is asked for, of the losses or "
            "of the answers)"
        )
    best = int(means.argmin())
    if kept == best:
        return f"its {name} is the lowest, {means[kept]:.4g}"
    if not gains or best:
        return (
            f"its {name}, {means[kept]:.4g}, is not above the lowest, {means[best]:.4g}, by what "
            f"{rows} can tell (p < {WORSE:g})"
        )
    said = f"its {name} is {means[kept]:.4g}"
    if later != kept:
        said += f", not above the lowest later one, {means[later]:.4g} (p < {WORSE:g})"
    return (
        f"{said}; that the probe's is lower, {means[0]:.4g}, {rows} do not tell for sure "
        f"(p < {LOST:g}), and this recipe was measured to gain over its probe"
    )
