"""When is the error of a run's looks spent, and what may a look exceed for it?

The half of ``looks`` that knows nothing of losses: times of looks, and boundaries from a law.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats

POWER = 5.0
FAR = 0.02  # of the error goes to the tail that draws do not reach
# Each is 18 % above the one before: as fine as a p-value from 2,000 draws is worth.
LEVELS = np.geomspace(0.0005, 1.0, 48)


def times_by_plan(steps: Sequence[int], plans: Sequence[int], power: float = POWER) -> Floats:
    """For ``look``: when each look was taken [looks], from its step and from the steps that were
    planned as it was taken, so that a look never changes what earlier ones spent.

    (time)^power, the share of all error spent, rises from 0 at step 0 to 1 at the end of the plan
    and stays there. Where a run is planned anew, the share that is left is spent from the step of
    the last look to the new end; a plan that was completed is followed by one with error of its
    own, so the share goes on to 2.
    """
    path = np.zeros(len(steps))
    began, spent, left = 0, 0.0, 1.0
    for k, (step, plan) in enumerate(zip(steps, plans, strict=True)):
        if k and plan != plans[k - 1]:
            began, spent = steps[k - 1], float(path[k - 1])
            left = math.floor(spent) + 1 - spent
        done = min(1.0, max(0, step - began) / max(1, plan - began))
        path[k] = spent + left * done**power
    # The reader raises it to ``power`` again, so that its spent share is ``path``.
    return np.asarray(np.maximum.accumulate(path) ** (1 / power))


def times_without_plan(looks: int) -> Floats:
    """For ``look`` at ``power`` 1: the error spent over looks without an end, k² ÷ (k² + 100): an
    eighth by the fourth look, half by the tenth, never all."""
    squares = np.arange(1.0, looks + 1) ** 2
    return np.asarray(squares / (squares + 100))


def checked_times(looks: int, planned: int, times: Floats | None) -> Floats:
    """When each look was taken, evenly unless ``times`` says so."""
    if looks > planned:
        rule = "cannot be more than planned, for their error is spent"
        raise Defect("looks at a run", rule, (looks, planned), "plan for as many as may come")
    if times is None:
        return np.arange(1, looks + 1) / planned
    found = np.asarray(times, dtype=np.float64)
    rises = bool(np.all(np.diff(found) >= 0)) and bool(np.all((found >= 0) & (found < np.inf)))
    if found.shape != (looks,) or not rises:
        rule = "must not be negative or fall, one a look"
        raise Defect("the times of looks", rule, found.tolist())
    return found


def share_spent(times: Floats, power: float) -> float:
    """Of all error, up to the last look; 0 without looks."""
    return float(times[-1] ** power) if len(times) else 0.0


@dataclass(frozen=True, slots=True)
class Paths:
    """The observed path [looks] and flat ones ``draws`` [looks, resamples], the law of the far tail
    and the share of all error that may be spent up to each look, ``path`` [looks]."""

    observed: Floats
    draws: Floats
    far: Callable[[Floats], Floats]
    path: Floats

    def boundary(self, alpha: float) -> Floats:
        """Most of the error by the draws; the rest by a union bound, which is finite also where
        less than one draw may cross, so that a rise beyond doubt is seen early in a run."""
        near = boundary_of(self.draws, (1 - FAR) * alpha * self.path)
        return np.minimum(near, self.far(FAR * alpha * np.diff(self.path, prepend=0.0)))

    def alarm(self, alpha: float) -> int | None:
        """The first look above its boundary, where there is one."""
        crossed = np.flatnonzero(self.observed > self.boundary(alpha))
        return int(crossed[0]) if len(crossed) else None

    def p_value(self, alpha: float) -> float:
        """The smallest of ``LEVELS`` (and alpha) with an alarm, by bisection on alpha's side."""
        raised = self.alarm(alpha) is not None
        levels = np.append(LEVELS[alpha > LEVELS], alpha) if raised else LEVELS[alpha < LEVELS]
        low, high = 0, len(levels) - 1
        while low < high:
            middle = (low + high) // 2
            if self.alarm(levels[middle]) is None:
                low = middle + 1
            else:
                high = middle
        return float(levels[high])


def boundary_of(draws: Floats, spent: Floats) -> Floats:
    """Boundaries [looks] such that the share ``spent`` [looks] of ``draws`` [looks, resamples] has
    crossed one up to each look; ∞ where less than one draw may cross."""
    looks, resamples = draws.shape
    # The observed path counts as one more draw, which makes the level exact for any number.
    # A product that should be a whole number may come out a hair below it.
    allowed = np.floor(spent * (resamples + 1) + 1e-9).astype(np.int64)
    alive = np.arange(resamples)
    boundary = np.full(looks, np.inf)
    for k in range(1, looks):
        free = min(len(alive), int(allowed[k]) - (resamples - len(alive)))
        if free > 0:
            kept = len(alive) - free
            # Exactly `free` draws cross, also among equal ones (looks at one and the same state).
            order = np.argpartition(draws[k, alive], kept)
            boundary[k] = draws[k, alive[order[kept]]]
            alive = np.delete(alive, order[kept:])
    return boundary
