"""A moment of a run that it can be put back into: for its best state, a checkpoint, a rollback, and
the undoing of an action.

``SavedWeights`` give the model of a moment back; from a ``RestorePoint`` training goes on as if
nothing had come after it. The best state of an ordinary run is the first, which costs one copy of
what learns. The second costs the optimizer's state beside, so one is taken where a checkpoint is
written, or where an advisor may yet go back (``core.events.RollsBack``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypedDict

import torch

from holdfast.training.actions.adjustments import Adjustments


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
