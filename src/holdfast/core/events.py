"""The protocols of the training loop: who may listen, judge or advise. ``core/updates.py`` has the
protocols of an update: what draws its rows, computes its gradient and adds to its losses.

The loop knows only these protocols, so ``training`` never imports ``methods``, ``monitor`` or
``control``. ``EVENTS`` lists every event, in the order of the drawing in ``training/loop.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

from holdfast.core.actions import Action
from holdfast.core.errors import Defect
from holdfast.core.records import Snapshot, Verdict

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
    "backward_done",
    "gradients_ready",
    "step_done",
    "epoch_end",
    "run_end",
)


Place = Literal["change", "note", "tell"]
# Change the run (a refitted head, an average of weights), note what it is (a data map), tell others
# (a bar, an alert, a tracker).
PLACES: tuple[Place, ...] = get_args(Place)


@runtime_checkable
class Stateful(Protocol):
    """Something that a checkpoint must keep."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Listener(Protocol):
    """An object with one method per event that it handles, each named as in ``EVENTS``, with the
    run's state as its argument. A listener with state is also ``Stateful``; its state is stored
    under its ``name``, which must be unique in a run. ``place`` decides the order in which
    listeners receive an event: ``order_listeners``."""

    @property
    def name(self) -> str: ...

    @property
    def place(self) -> Place: ...


def order_listeners(listeners: Iterable[Listener]) -> tuple[Listener, ...]:
    """The listeners in the order in which they receive an event: by ``place``, in the order of
    ``PLACES``, and then by name. A listener without a place only reports.

    So changes to the run come first, then what records it, then what reports the record. Raises
    ``Defect`` for two listeners with one name, since one would get the other's state.
    """
    ordered = sorted(listeners, key=lambda one: (PLACES.index(_place(one)), one.name))
    names = [one.name for one in ordered]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Defect("the loop", "was given two listeners of one name", twice)
    return tuple(ordered)


def _place(listener: object) -> Place:
    place: Place = getattr(listener, "place", "tell")
    return place


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """Weights that a listener combined from those of the run, offered as a checkpoint.

    ``tensors`` by name; other weights stay as they are. ``step`` is the evaluation at which the run
    had the newest weights in it, ``composition`` describes it in words. ``curve`` holds points that
    were tried on the way, plain numbers by name. ``within`` is the validation loss, in nats, that a
    recipe is willing to give up for it: the offer is then accepted up to that loss, whatever the
    rule of selection says.
    """

    tensors: Mapping[str, torch.Tensor]
    step: int
    composition: str
    curve: Sequence[Mapping[str, float | None]] = field(default=())
    within: float = 0.0


class OfferTrial(Protocol):
    """Evaluate offered weights on the validation rows. Running statistics of batch norms are
    measured again on training rows, and a head that the phase refits is refitted: averages of
    either would fit no network."""

    def __call__(self, tensors: Mapping[str, torch.Tensor]) -> Snapshot:
        """An evaluation of the weights, without the training sample."""
        ...

    def would_keep(self, snapshot: Snapshot) -> bool:
        """Whether the run would select them as the best checkpoint, by its own rule and compared
        with all its evaluations."""
        ...


@runtime_checkable
class Offers(Protocol):
    """A listener that offers weights at the end of a run. They become the checkpoint if the
    selection rule would choose them as the newest evaluation."""

    def offer(self, run: Any, trial: OfferTrial) -> Offer | str:
        """The weights, or the reason why there are none, as a clause."""
        ...


class Monitor(Protocol):
    """Judges a history of snapshots on the current branch; a pure function of it. ``kept`` is the
    step of the best checkpoint: the sentence names it, and no label depends on it."""

    def __call__(self, history: Sequence[Snapshot], kept: int | None = None) -> Verdict: ...


class Advisor(Stateful, Protocol):
    """Turns a verdict into actions; deterministic, and its state survives a resume."""

    def decide(self, verdict: Verdict, history: Sequence[Snapshot]) -> tuple[Action, ...]: ...


@runtime_checkable
class RollsBack(Protocol):
    """What an advisor needs in addition if it may advise ``RollBack``.

    A restore point takes as much memory as the optimizer (and as the weights, if its evaluation is
    not the best one), so a run stores only those that its advisor asks for.
    """

    def restore_points(self, history: Sequence[Snapshot]) -> Collection[int]:
        """The steps of the evaluations to which it may still go back: asked after ``decide``,
        before the actions are applied. The current one is then stored, and of the stored ones,
        those named are kept."""
        ...

    def rolled_back(self, state: dict[str, Any]) -> None:
        """The run went back to an evaluation at which the advisor's state was ``state``. Its counts
        of evaluations go back too. What it knows of actions already tried should not, or it would
        take the same action for ever."""
        ...


@runtime_checkable
class Returns(RollsBack, Protocol):
    """What an advisor needs in addition if it tries something on a branch and may undo all of
    it."""

    def returns_to(self) -> tuple[int, int] | None:
        """The number of the branch that was left, and the step of its last evaluation, to which it
        may still return; ``None`` if there is none. Asked before and after the actions of an
        evaluation."""
        ...


@runtime_checkable
class Explains(Protocol):
    """An advisor that notes at each evaluation what it saw and why it advises an action."""

    def notes(self) -> Sequence[Mapping[str, Any]]:
        """The fields of the notes since the last call, ``because`` among them."""
        ...
