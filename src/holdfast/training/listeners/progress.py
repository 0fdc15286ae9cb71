"""``UpdateProgress``: the updates of fits that have no display of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from holdfast.core.decisions import tick
from holdfast.core.events import Place

if TYPE_CHECKING:
    from holdfast.training.run import Run


@dataclass(slots=True)
class UpdateProgress:
    """A listener that reports each update as progress of ``what``, counted over all fits that it
    listens to; a ``total`` of 0 means all updates of the fit."""

    what: str
    total: int = 0
    done: int = 0
    name: ClassVar[str] = "progress"
    place: ClassVar[Place] = "tell"

    def step_done(self, run: Run) -> None:
        """Report one more update."""
        self.done += 1
        tick(self.done, self.total or run.plan.steps, self.what)
