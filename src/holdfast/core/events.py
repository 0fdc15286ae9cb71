"""The hinges of the loop: what may listen, judge or advise; ``core/updates.py`` has those of an
update: what draws its rows, makes its gradient, adds to its losses.

The loop knows only these Protocols, so ``training`` never imports ``methods``, ``monitor`` or
``control``. ``EVENTS`` is the whole vocabulary, in the order of the drawing in
``training/loop.py``.
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
    """An object with one method per event that it cares about, each named as in ``EVENTS`` and
    taking the run's state. A listener with state is also ``Stateful``, and its state is kept under
    its ``name``, which is its own in a run. ``place`` says when it hears an event:
    ``order_listeners``."""

    @property
    def name(self) -> str: ...

    @property
    def place(self) -> Place: ...


def order_listeners(listeners: Iterable[Listener]) -> tuple[Listener, ...]:
    """The listeners as they hear an event, however they were given: by ``place``, in the order of
    ``PLACES``, and inside a place by name. One that names no place only tells.

    So whatever changes the run has done so before anybody notes what it is now, and what is told
    has been noted. Raises ``Defect`` for two of one name: one would get the other's state.
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
    """Weights that a listener made of those that a run went through, for the state to keep.

    ``tensors`` by name; what is not in them stays as it is. ``step`` is the look at which the run
    had the newest weights that are in it, ``composition`` says what it is made of, in words.
    ``curve`` are points that were tried on the way, plain numbers by name, to be read beside it.
    ``within`` is how much validation loss, in nats, a recipe gives for it: then it is kept as far
    as that goes, whatever the rule among the looks says.
    """

    tensors: Mapping[str, torch.Tensor]
    step: int
    composition: str
    curve: Sequence[Mapping[str, float | None]] = field(default=())
    within: float = 0.0


class OfferTrial(Protocol):
    """How weights that a run never had do on its validation rows. Running statistics of batch norms
    are measured anew, on training rows, and a head that the phase refits is refitted: an average of
    either would be that of no network."""

    def __call__(self, tensors: Mapping[str, torch.Tensor]) -> Snapshot:
        """A look at them, without the train probe."""
        ...

    def would_keep(self, snapshot: Snapshot) -> bool:
        """Whether the run would keep them, by its own rule and against all its looks."""
        ...


@runtime_checkable
class Offers(Protocol):
    """A listener that, at the end of a run, offers weights for the state to keep. They are kept if
    the rule that chooses among the looks would choose them as the newest of all."""

    def offer(self, run: Any, trial: OfferTrial) -> Offer | str:
        """The weights; or why there are none, as a clause."""
        ...


class Monitor(Protocol):
    """Judges a history of snapshots, those of the branch that is alive; a pure function of it.
    ``kept`` is the step of the state that the run keeps: it is named in the sentence, and no label
    depends on it."""

    def __call__(self, history: Sequence[Snapshot], kept: int | None = None) -> Verdict: ...


class Advisor(Stateful, Protocol):
    """Turns a verdict into actions; deterministic, and its state survives a resume."""

    def decide(self, verdict: Verdict, history: Sequence[Snapshot]) -> tuple[Action, ...]: ...


@runtime_checkable
class RollsBack(Protocol):
    """What an advisor that may advise ``RollBack`` has beside.

    A restore point takes as much memory as the optimizer (and as the weights, where its look is
    not the best one), so a run keeps none that its advisor does not ask for.
    """

    def restore_points(self, history: Sequence[Snapshot]) -> Collection[int]:
        """The looks' steps to which it may yet go back: asked after ``decide``, before the actions
        are applied. The present one is then kept, and of those kept before, the ones named."""
        ...

    def rolled_back(self, state: dict[str, Any]) -> None:
        """The run went back to a look at which the advisor's state was ``state``. What it counts
        of looks goes back too; what it knows of actions that it has tried should not, or it takes
        the same one for ever."""
        ...


@runtime_checkable
class Returns(RollsBack, Protocol):
    """What an advisor has beside that tries something on a branch and may undo it all."""

    def returns_to(self) -> tuple[int, int] | None:
        """The number of the branch that was left, and the step of its last look, to which it may
        yet return; ``None``: to none. Asked before the actions of a look and after them."""
        ...


@runtime_checkable
class Explains(Protocol):
    """An advisor that says at each look what it saw and why it advises what it does."""

    def notes(self) -> Sequence[Mapping[str, Any]]:
        """The fields of notes since it was asked last; ``because`` among them."""
        ...
