"""A soup of the run's own best states, offered for the state to keep (2203.05482, recipe 1).

The looks of lowest validation loss, the best first. Each is added where the plain mean of all that
were added, with it, has no higher validation loss than without:

    S ← {w_(1)};  for i = 2 … k:  S ← S ∪ {w_(i)}  if  L(mean(S ∪ {w_(i)})) ≤ L(mean(S))

The paper cooks states of different runs; states of one run lie in one valley all the more.
Siblings: ``swa`` averages every step of the tail and asks nothing, ``wise`` goes back towards the
start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from holdfast.core.events import Offer, OfferTrial, Place
from holdfast.methods.registry import METHODS, Method, Parts, setting

if TYPE_CHECKING:
    import torch

    from holdfast.training.run import Run


Tensors = Mapping[str, "torch.Tensor"]


def plain_mean(states: Sequence[Tensors]) -> dict[str, torch.Tensor]:
    """The mean of states with the same names; of whole numbers the first state's."""
    import torch

    return {
        name: torch.stack([state[name] for state in states]).mean(dim=0)
        if first.is_floating_point()
        else first
        for name, first in states[0].items()
    }


def greedy(states: Sequence[Tensors], loss_of: Callable[[Tensors], float]) -> list[int]:
    """Which of the ``states``, ordered with the best first, the greedy soup is made of."""
    chosen, best = [0], loss_of(states[0])
    for place in range(1, len(states)):
        loss = loss_of(plain_mean([states[at] for at in (*chosen, place)]))
        if loss <= best:
            chosen, best = [*chosen, place], loss
    return chosen


@dataclass(frozen=True, slots=True)
class SoupMethod:
    """``states`` is k, how many of the best looks are held and tried: a copy of what learns each,
    and one of them every run holds anyway."""

    states: int = setting(5, least=2, most=50, whole=True)


class SoupState(TypedDict):
    """What a checkpoint keeps of a soup: the loss, step and weights of each look that is held."""

    held: Sequence[tuple[float, int, Tensors]]


class SoupOfLooks:
    """Holds the weights of the best looks. ``most`` of them; the state at the start is one."""

    name: ClassVar[str] = "soup"
    place: ClassVar[Place] = "change"

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: list[tuple[float, int, Tensors]] = []

    def snapshot_taken(self, run: Run) -> None:
        # Where the run has just gone back, this is the look that it went back to.
        look = run.history[-1]
        known = any(step == look.step for _, step, _ in self._held)
        if math.isfinite(look.refined_loss) and not known:
            self._held.append((float(look.refined_loss), look.step, run.previous))
            self._held = sorted(self._held, key=lambda one: one[:2])[: self._most]

    def offer(self, run: Run, trial: OfferTrial) -> Offer | str:
        if len(self._held) < 2:
            return "a soup needs two looks with a validation loss"
        states = [tensors for _, _, tensors in self._held]
        chosen = greedy(states, lambda tensors: trial(tensors).refined_loss)
        steps = [self._held[place][1] for place in chosen]
        if len(chosen) == 1:
            return f"no mean with another of the {len(states)} best looks is better than the best"
        named = ", ".join(str(step) for step in sorted(steps))
        made_of = f"the mean of the states of steps {named}, of the {len(states)} best looks"
        return Offer(plain_mean([states[place] for place in chosen]), max(steps), made_of)

    def state_dict(self) -> dict[str, Any]:
        return {"held": [[loss, step, dict(tensors)] for loss, step, tensors in self._held]}

    def load_state_dict(self, state: SoupState) -> None:
        self._held = [(loss, step, tensors) for loss, step, tensors in state["held"]]


METHODS.add(
    "soup",
    Method(
        SoupMethod,
        lambda asked: Parts(
            listeners=lambda: (SoupOfLooks(asked.states),), copies=max(0, asked.states - 1)
        ),
    ),
)
