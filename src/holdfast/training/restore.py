"""A moment of a run that it can be put back into: for its best state, a checkpoint, a rollback, and
the undoing of an action.

``SavedWeights`` give the model of a moment back; from a ``RestorePoint`` training goes on as if
nothing had come after it. The best state of an ordinary run is the first, which costs one copy of
what learns. The second costs the optimizer's state beside, so one is taken where a checkpoint is
written, or where an advisor may yet go back (``core.events.RollsBack``).

Part of a moment is what actions had changed of the settings that the run began with
(``Adjustments``, a value), and what may join it (``Additions``). The job is never written to:
``adjusted_plan`` gives the plan that follows, and ``training/act.py`` makes the optimizer, the
schedule and the network follow. ``training`` names no method and no enrichment: whoever puts a job
together says what there is to add, and makes the phases with it.
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
    """Where PyTorch's generators are: the processor's, each GPU's, and Apple's where there is
    one."""

    torch: torch.Tensor
    cuda: list[torch.Tensor]
    mps: torch.Tensor


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """All that the training after it depends on, beside the job.

    ``weights`` are those of the moment, ``previous`` those of the look before it (at a look they
    are the same), ``best`` those that the run would have ended with. ``position`` are the run's
    counters, the place among the rows with them; ``adjustments`` the settings that actions had
    changed; ``listeners`` the states of those that have one, by name. ``optimizer`` and
    ``schedule`` are ``None`` before the first phase and after the last.
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
        """The same with states of its own, which later steps cannot write into; in the processor's
        memory. Saved weights are never written to, so they are shared."""
        return replace(
            self,
            **{
                name: _copy(getattr(self, name))
                for name in ("position", "optimizer", "schedule", "random", "advisor", "listeners")
            },
        )

    def to_state(self) -> dict[str, Any]:
        """In types that the weights-only loader reads."""
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
    """Where PyTorch's generators are."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    apple: RandomState = (
        {"mps": torch.mps.get_rng_state()} if torch.backends.mps.is_available() else {}
    )
    return {"torch": torch.get_rng_state(), "cuda": cuda, **apple}


def set_random_state(state: RandomState) -> None:
    """Put them back there."""
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
    """What can be added to a run's phases; a function of what it is given, without a state."""

    def accepts(self, phase: Phase) -> bool:
        """Whether something can be added to this phase."""
        ...

    def complete_settings(
        self, name: str, given: Settings, on: Mapping[str, Settings]
    ) -> dict[str, Any]:
        """Every setting of the method ``name``, as given or worked out, where the methods ``on``
        have been switched on before. Raises ``RunError`` for one that cannot join this run."""
        ...

    @property
    def notches(self) -> int:
        """How many notches stronger the rows can be enriched than the recipe says."""
        ...

    def add_to(self, phase: Phase, methods: Mapping[str, Settings], notches: int) -> Phase:
        """The phase with these methods (all their settings) in it, its rows enriched by so many
        notches more."""
        ...

    def listeners(self, name: str, settings: Settings) -> Sequence[Listener]:
        """What of the method must hear the loop, made anew."""
        ...


@dataclass(frozen=True, slots=True)
class Adjustments:
    """``rate`` is a factor on every learning rate; ``weight_decay`` and ``dropout`` stand in the
    place of the recipe's where they are not ``None``; ``frozen`` are names of parameters that would
    learn, ``thawed`` of those that would not; ``more_steps`` are those that the last phase takes
    beyond its plan, below 0 where it takes fewer. ``methods`` are those that were switched on, with
    every setting, ``augmentation`` how many notches stronger the rows are enriched, ``shuffles``
    how often the rows to come were put in another order."""

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
        """An older version's state knew fewer of them."""
        names = {name: tuple(state.get(name, ())) for name in ("frozen", "thawed")}
        return cls(**{**state, **names})


NO_ADJUSTMENTS = Adjustments()


def adjusted_plan(plan: Plan, adjustments: Adjustments, additions: Additions | None = None) -> Plan:
    """The plan with what was changed of its rates, decay, length, methods and forms of rows; itself
    without a change."""
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
    # A longer warm-up would begin anew behind its end: it keeps its steps, of which the share is
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
