"""Which state of a run to keep: a pure function of the history, in either of two ways.

| rule | keeps | when |
|---|---|---|
| ``lowest`` | the state with the smallest criterion | a metric of the user's choice |
| ``newest_unless_worse`` | the newest state not clearly worse than the lowest | the default |

The lowest of 20 noisy means is often an early state that was lucky on a few validation rows, while
under a falling rate the later states are better on unseen rows (winner's curse). So a later state
stands in for the lowest one unless validation says, by a paired test, that it is worse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from holdfast.core.records import Floats, Snapshot
from holdfast.monitor.evidence import validation_losses
from holdfast.stats.student import paired_t

LEVEL = 0.05
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


def newest_unless_worse(history: Sequence[Snapshot]) -> int:
    """Keep the newest state whose validation loss is not significantly above the lowest so far.

    Losses are those after each snapshot's best temperature, row by row. A state is worse when the
    one-sided paired t-test against the lowest state up to it gives p < 0.05. The comparison is
    always with the lowest, so small losses of ground cannot add up. With one validation row a
    state is worse when its loss is higher; with none, the newest state is kept; a state with a loss
    that is not a number is never kept while there is another.
    """
    losses, _ = validation_losses(history)
    if not losses.size:
        return len(history) - 1
    means = losses.mean(axis=0)
    means = np.where(np.isfinite(means), means, np.inf)
    kept = best = 0
    for state in range(1, len(history)):
        best = state if means[state] < means[best] else best
        if np.isfinite(means[state]) and not is_worse(losses[:, state], losses[:, best]):
            kept = state
    return kept


def is_worse(now: Floats, before: Floats) -> bool:
    """Whether the losses ``now`` [n] are above ``before`` [n], row by row, by a one-sided paired
    t-test at 5 %."""
    difference = now - before
    if len(difference) < 2 or np.ptp(difference) == 0:
        return bool(difference.mean() > 0)
    return paired_t(now, before).above > 1 - LEVEL
