"""A moment of a run that can be restored: for its best checkpoint, a resume, a rollback, and the
undoing of an action.

``SavedWeights`` restore only the model of a moment; from a ``RestorePoint`` training continues as
if nothing had come after it. The best checkpoint of an ordinary run is the first kind, which takes
one copy of the trainable parameters. The second kind also takes the optimizer's state, so one is
made where a checkpoint is written, or where an advisor may still go back
(``core.events.RollsBack``).

A moment includes the changes that actions made to the settings of the run (``Adjustments``, a
value), and what may join it (``Additions``). The job is never changed: ``adjusted_plan`` gives the
resulting plan, and ``training/act.py`` makes the optimizer, the schedule and the network follow.
``training`` names no method and no enrichment: the code that builds a job says what can be added,
and makes the phases with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Protocol, TypedDict

import torch

from holdfast.core.events import Listener
from holdfast.training.plan import Phase, Plan


@dataclass(frozen=True, slots=True)
class SavedWeights:
    """The tensors that training changes, by name, as they were at ``step``; never written to."""

    step: int = -1
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)


class RandomState(TypedDict, total=False):
    """The states of PyTorch's generators: the CPU's, each GPU's, and Apple's where there is one."""

    torch: torch.Tensor
    cuda: list[torch.Tensor]
    mps: torch.Tensor


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """Everything that the following training depends on, except for the job.

    ``weights`` are those of the moment, ``previous`` those of the evaluation before it (at an
    evaluation they are the same), ``best`` those that the run would have ended with. ``position``
    contains the run's counters, including the position among the rows; ``adjustments`` the settings
    that actions had changed; ``listeners`` the states of those that have one, by name.
    ``optimizer`` and ``schedule`` are ``None`` before the first phase and after the last.
    """

    weights: SavedWeights
    previous: Mapping[str, torch.Tensor]
    best: SavedWeights
    position: Mapping[str, Any]
    adjustments: Adjustments
    optimizer: dict[str, Any] | None
    schedule: dict[str, Any] | None
    random: RandomState
    advisor: dict[str, Any] | None
    listeners: Mapping[str, dict[str, Any]]

    def copied(self) -> RestorePoint:
        """A copy with its own states, which later steps cannot write into, in CPU memory. Saved
        weights are never written to, so they are shared."""
        return replace(
            self,
            **{
                name: _copy(getattr(self, name))
                for name in ("position", "optimizer", "schedule", "random", "advisor", "listeners")
            },
        )

    def to_state(self) -> dict[str, Any]:
        """The point in types that the weights-only loader reads."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {
            **values,
            "weights": [self.weights.step, dict(self.weights.tensors)],
            "best": [self.best.step, dict(self.best.tensors)],
            "previous": dict(self.previous),
            "adjustments": self.adjustments.to_state(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> RestorePoint:
        return cls(
            **{
                **state,
                "weights": SavedWeights(*state["weights"]),
                "best": SavedWeights(*state["best"]),
                "adjustments": Adjustments.from_state(state["adjustments"]),
            }
        )


def random_state() -> RandomState:
    """The states of PyTorch's generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    apple: RandomState = (
        {"mps": torch.mps.get_rng_state()} if torch.backends.mps.is_available() else {}
    )
    return {"torch": torch.get_rng_state(), "cuda": cuda, **apple}


def set_random_state(state: RandomState) -> None:
    """Restore the states of PyTorch's generators."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    if "mps" in state:
        torch.mps.set_rng_state(state["mps"])


def _copy(value: Any) -> Any:
    if torch.is_tensor(value):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {key: _copy(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copy(one) for one in value)
    return value


Settings = Mapping[str, Any]


class Additions(Protocol):
    """What can be added to a run's phases; a function of its arguments, without a state."""

    def accepts(self, phase: Phase) -> bool:
        """Whether something can be added to this phase."""
        ...

    def complete_settings(
        self, name: str, given: Settings, on: Mapping[str, Settings]
    ) -> dict[str, Any]:
        """Every setting of the method ``name``, as given or computed, where the methods ``on`` have
        been switched on before. Raises ``RunError`` for one that cannot join this run."""
        ...

    @property
    def notches(self) -> int:
        """By how many notches augmentation can be stronger than in the recipe."""
        ...

    def add_to(self, phase: Phase, methods: Mapping[str, Settings], notches: int) -> Phase:
        """The phase with these methods (all their settings), its augmentation stronger by this many
        notches."""
        ...

    def listeners(self, name: str, settings: Settings) -> Sequence[Listener]:
        """New instances of the method's listeners to the loop."""
        ...


@dataclass(frozen=True, slots=True)
class Adjustments:
    """``rate`` is a factor on every learning rate. ``weight_decay`` and ``dropout`` replace those
    of the recipe where they are not ``None``. ``frozen`` are names of parameters that would
    otherwise be trained, ``thawed`` of those that would not. ``more_steps`` is the change of the
    number of steps of the last phase, below 0 where it takes fewer. ``methods`` are those that were
    switched on, with every setting, ``augmentation`` the number of notches by which augmentation is
    stronger, ``shuffles`` how often the remaining rows were reshuffled."""

    rate: float = 1.0
    weight_decay: float | None = None
    dropout: float | None = None
    frozen: tuple[str, ...] = ()
    more_steps: int = 0
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    augmentation: int = 0
    thawed: tuple[str, ...] = ()
    shuffles: int = 0

    def to_state(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Adjustments:
        """The state of an older version may lack some of the fields."""
        names = {name: tuple(state.get(name, ())) for name in ("frozen", "thawed")}
        return cls(**{**state, **names})


NO_ADJUSTMENTS = Adjustments()


def adjusted_plan(plan: Plan, adjustments: Adjustments, additions: Additions | None = None) -> Plan:
    """The plan with the changes of its rates, decay, length, methods and augmentation; the same
    plan without a change."""
    phases = plan.phases
    if additions is not None and (adjustments.methods or adjustments.augmentation):
        phases = tuple(
            additions.add_to(p, adjustments.methods, adjustments.augmentation) for p in phases
        )
    if (adjustments.rate, adjustments.weight_decay) != (1.0, None):
        phases = tuple(
            replace(
                phase,
                learning_rate=phase.learning_rate * adjustments.rate,
                head_learning_rate=phase.head_learning_rate * adjustments.rate,
                weight_decay=phase.weight_decay
                if adjustments.weight_decay is None
                else adjustments.weight_decay,
            )
            for phase in phases
        )
    if not adjustments.more_steps:
        return plan if phases is plan.phases else replace(plan, phases=phases)
    last, before = phases[-1], plan.evaluate_at
    # A longer warm-up would begin again after its end: it keeps its steps, of which the share is
    # rounded up.
    warmup = max(0.0, last.warmup_steps - 0.5) / (last.steps + adjustments.more_steps)
    last_phase = replace(last, steps=last.steps + adjustments.more_steps, warmup=min(warmup, 1.0))
    end, interval = (
        plan.steps + adjustments.more_steps,
        before[-1] - before[-2] if len(before) > 1 else 1,
    )
    evaluation_steps = (
        *(step for step in before if step < end),
        *range(before[-1] + interval, end, interval),
        end,
    )
    return replace(plan, phases=(*phases[:-1], last_phase), evaluate_at=evaluation_steps)
