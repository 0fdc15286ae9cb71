"""The test over the looks of one run, with its error spent by what is known of the run's plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from holdfast.core.records import Floats, Snapshot
from holdfast.core.run_facts import RunFacts
from holdfast.core.seeds import generator
from holdfast.stats.course.error_budget import POWER, times_by_plan, times_without_plan
from holdfast.stats.course.rise import RiseState, look

# An error of 4 % over a run is eighty of them.
RESAMPLES = 2000


def look_of(history: Sequence[Snapshot], known: RunFacts, table: Floats, alpha: float) -> RiseState:
    """What ``table`` [rows, snapshots] says of a rise of its last column above its best, at the
    error ``alpha`` over the whole run."""
    power, times = spent_times(history, known)
    return look(
        table,
        table.shape[1],
        # One seed in every run and at every look: the boundaries of earlier looks must not move.
        seed=generator(0, "guard", "looks"),
        alpha=alpha,
        times=times,
        power=power,
        resamples=RESAMPLES,
    )


def spent_times(history: Sequence[Snapshot], known: RunFacts) -> tuple[float, Floats]:
    """How late the error is spent, and when each look was taken: by the steps of the plan as it
    stood then, else by the number of looks, else without an end in sight."""
    plans = [snapshot.planned_steps or known.planned_steps for snapshot in history]
    if None not in plans:
        steps = [snapshot.step for snapshot in history]
        return POWER, times_by_plan(steps, [plan or 0 for plan in plans])
    looks = np.arange(1, len(history) + 1)
    if known.planned_looks is not None:
        return POWER, np.minimum(1.0, looks / known.planned_looks)
    return 1.0, times_without_plan(len(looks))
