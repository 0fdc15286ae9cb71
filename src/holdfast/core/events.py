"""The hinges of the loop: what may listen, add a loss, judge or advise.

The loop knows only these Protocols, so ``training`` never imports ``methods``, ``monitor`` or
``control``. ``EVENTS`` is the whole vocabulary, in the order of the drawing in
``training/loop.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from holdfast.core.records import Action, Snapshot, Verdict

if TYPE_CHECKING:
    import torch

EVENTS = (
    "run_start",
    "snapshot_due",
    "snapshot_taken",
    "phase_start",
    "epoch_start",
    "batch_ready",
    "loss_ready",
    "gradients_ready",
    "step_done",
    "epoch_end",
    "run_end",
)


@runtime_checkable
class Stateful(Protocol):
    """Something that a checkpoint must keep."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Listener(Protocol):
    """An object with one method per event that it cares about, each named as in ``EVENTS`` and
    taking the run's state. A listener with state is also ``Stateful``."""

    name: str


class LossTerm(Protocol):
    """Adds to the loss of a batch, per example.

    Called with the batch, the model's output and the per-example losses so far [batch], returns
    the losses [batch] to use instead.
    """

    name: str

    def __call__(
        self, batch: dict[str, torch.Tensor], output: Any, losses: torch.Tensor
    ) -> torch.Tensor: ...


class Monitor(Protocol):
    """Judges a history of snapshots; a pure function of it. ``kept`` is the step of the state that
    the run keeps: it is named in the sentence, and no label depends on it."""

    def __call__(self, history: Sequence[Snapshot], kept: int | None = None) -> Verdict: ...


class Advisor(Stateful, Protocol):
    """Turns a verdict into actions; deterministic, and its state survives a resume."""

    def decide(self, verdict: Verdict, history: Sequence[Snapshot]) -> tuple[Action, ...]: ...
