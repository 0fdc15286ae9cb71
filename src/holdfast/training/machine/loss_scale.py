"""Gradients in float16: the loss is multiplied by a scale before the backward pass, and what comes
of it divided again, so that small gradients do not vanish (1710.03740).

float16 ends at 65,504, and a scale that is too large makes gradients infinite: then the update is
skipped and the scale halved, which is told. After 2,000 updates without one it is doubled. All of
this is PyTorch's ``GradScaler``, on any device.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypedDict

import torch

from holdfast.core.errors import TrainingError

if TYPE_CHECKING:
    from holdfast.training.journal import Journal

# Halved so often from the first scale, 65,536, nothing is left to halve: the loss itself overflows.
MOST_IN_A_ROW = 24


class ScaleState(TypedDict, total=False):
    """What a checkpoint keeps of a loss scale; nothing where there is none."""

    skipped: int
    in_a_row: int
    scaler: dict[str, Any]


class LossScale:
    """The scale of one run; without a ``scaler`` (any precision but float16) it does nothing.

    ``skipped`` counts the updates that were left out, ``in_a_row`` the newest of them.
    """

    def __init__(self, scaler: torch.amp.GradScaler | None) -> None:
        self._scaler = scaler
        self.skipped = 0
        self.in_a_row = 0

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale, before anything reads them."""
        if self._scaler is not None:
            self._scaler.unscale_(optimizer)

    def step(
        self, optimizer: torch.optim.Optimizer, norm: float, number: int, journal: Journal
    ) -> bool:
        """The optimizer's step, that of the update ``number``; gives ``False``, and says so in the
        ``journal``, where the gradients (of this ``norm``) overflowed and it was left out.

        Raises ``TrainingError`` where one update after the other is left out.
        """
        if self._scaler is None:
            optimizer.step()
            return True
        before = self._scaler.get_scale()
        self._scaler.step(optimizer)
        self._scaler.update()
        if math.isfinite(norm):
            self.in_a_row = 0
            return True
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        now = self._scaler.get_scale()
        because = (
            f"its gradients are beyond what float16 holds at a loss scale of {before:,.0f}: the "
            f"weights stay as they were, and the scale is {now:,.0f} from here on "
            f"({self.skipped} so far)"
        )
        journal.note(number, "update skipped", because, chosen="float16")
        if self.in_a_row >= MOST_IN_A_ROW:
            raise TrainingError(
                f"step {number}",
                f"gave gradients that float16 cannot hold, as did the {self.in_a_row - 1} updates "
                "before it",
                None,
                "Set train.precision=float32, or lower train.learning_rate.",
            )
        return False

    def state_dict(self) -> dict[str, Any]:
        """In types that the weights-only loader reads; empty without a scaler."""
        if self._scaler is None:
            return {}
        counts = {"skipped": self.skipped, "in_a_row": self.in_a_row}
        return {**counts, "scaler": self._scaler.state_dict()}

    def load_state_dict(self, state: ScaleState) -> None:
        """Go on from such a state."""
        if self._scaler is None or not state:
            return
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]
        self._scaler.load_state_dict(state["scaler"])
