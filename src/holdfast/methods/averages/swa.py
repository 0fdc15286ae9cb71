"""The plain mean of the weights over the tail of a run, offered for the state to keep (1803.05407).

    m = 1/n · Σ w_t  over the last n steps

The paper averages once an epoch at a high rate that does not fall; a mean over every step costs one
addition and is less noisy. Under a rate that falls to zero the last steps hardly move, so most of
the mean is that of the early tail: with ``train.schedule=constant`` it gains most. Siblings:
``ema`` forgets older steps, ``soup`` averages looks and tests each.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.methods.averages.running_mean import COPIES, RunningMean
from holdfast.methods.registry import METHODS, Method, Parts, setting


def mean_share(count: int) -> float:
    """How far the plain mean moves to the ``count``-th of its members, counted from 1."""
    return 1 / count


@dataclass(frozen=True, slots=True)
class Swa:
    """``start`` is the share of the planned steps, in [0, 0.99], after which steps count."""

    start: float = setting(0.5, most=0.99)

    def listeners(self) -> tuple[RunningMean]:
        def made_of(steps: int) -> str:
            return f"the mean of {steps} steps from {self.start:.0%} of the plan on"

        return (RunningMean("swa", mean_share, self.start, made_of),)


METHODS.add("swa", Method(Swa, lambda asked: Parts(listeners=asked.listeners, copies=COPIES)))
