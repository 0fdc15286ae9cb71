"""The last layer is put back in the middle of the fine-tuning, against primacy bias (2205.07802).

What is learned from the first rows has a hold on all that follows. The head is again what it was at
the first look (a linear probe, or random weights), and its optimizer remembers nothing of it; what
the layers below have learned stays, and the rest of the steps fits the head to that. It is what
the action ``ResetHead`` does by what a run shows; here a recipe asks for it at a known step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from holdfast.core.events import Place
from holdfast.methods.registry import METHODS, Method, Parts, setting
from holdfast.models.layers import put_head_back

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.training.run import Run


@dataclass(frozen=True, slots=True)
class ResetHeadAt:
    """``at`` is the share of the fine-tuning after which the head is put back, in (0, 0.95]."""

    at: float = setting(0.5, above=0, most=0.95)


class HeadPutBack:
    """The listener. It remembers whether it is done: a plan that is extended moves the step."""

    name: ClassVar[str] = "reset_head"
    place: ClassVar[Place] = "change"

    def __init__(self, at: float) -> None:
        self._at = at
        self._done = False

    def step_done(self, run: Run) -> None:
        if self._done or run.phase.head != "train":
            return
        # After the last update nothing would fit what was put back; one update alone has no middle.
        if run.step_in_phase != min(max(1, round(self._at * run.phase.steps)), run.phase.steps - 1):
            return
        self._done = True
        if put_head_back(run.network, run.learning_parameters(), run.start, run.optimizer):
            because = "methods.reset_head: it is again what it was at the first look (2205.07802)"
            run.journal.note(run.step, "head put back", because)

    def state_dict(self) -> dict[str, Any]:
        return {"done": self._done}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self._done = bool(state["done"])


METHODS.add(
    "reset_head",
    # In a run under way its step may be over; there is an action for that.
    Method(
        ResetHeadAt, lambda asked: Parts(listeners=lambda: (HeadPutBack(asked.at),)), joins=False
    ),
)
