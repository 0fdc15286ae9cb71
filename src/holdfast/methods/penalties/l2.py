"""Penalties that pull by a square, to zero (``l2``) or to where the fine-tuning began (``l2_sp``).
Both are part of the gradient, so that the clip and the optimizer see them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.core.events import Place
from holdfast.methods.penalties.base import PLACES, penalty, pulled, with_gradient
from holdfast.methods.registry import METHODS, Method, Parts, setting

if TYPE_CHECKING:
    import torch

    from holdfast.training.run import Run


class SquaredWeights:
    """The listener that adds λw to the gradients."""

    name = "l2"
    place: Place = "change"

    def __init__(self, strength: float, where: str) -> None:
        self._strength, self._where = strength, where
        self._weights: dict[str, torch.nn.Parameter] = {}

    def run_start(self, run: Run) -> None:
        self._weights = pulled(run.network, self._where)

    def backward_done(self, run: Run) -> None:
        for _, weight in with_gradient(run, self._weights):
            weight.grad.add_(weight.detach(), alpha=self._strength)


@dataclass(frozen=True, slots=True)
class L2:
    """L2 as a term of the loss: the penalty's gradient goes through the optimizer (Krogh and Hertz
    1991).

        L(w) + λ/2 Σ w²,   so the gradient of an update is ∇L + λw

    ``strength`` is λ, in nats per squared unit of weight. With plain SGD this is weight decay of ηλ
    an update. With Adam it is not (1711.05101): λw is divided by the root of the gradient's mean
    square like the rest, so weights with large gradients are hardly pulled; ``train.weight_decay``
    of ``adamw`` is decoupled, w ← w − ηλw for all alike, and is neither clipped nor averaged over
    updates. ``place`` are the weights that are pulled: ``all`` or ``head``."""

    strength: float = setting(0.01, above=0)
    place: str = setting("all", words=PLACES)


def _of_l2(asked: L2) -> Parts:
    return penalty("l2", asked.place, lambda: SquaredWeights(asked.strength, asked.place))


METHODS.add("l2", Method(L2, _of_l2))


class TowardsStart:
    """The listener that adds α (w − w⁰) and βv to the gradients. It has no state: a run keeps its
    start."""

    name = "l2_sp"
    place: Place = "change"

    def __init__(self, strength: float, head: float) -> None:
        self._strength, self._of_head = strength, head
        self._weights: dict[str, torch.nn.Parameter] = {}
        self._start: dict[str, torch.Tensor] = {}
        self._new: frozenset[str] = frozenset()

    def run_start(self, run: Run) -> None:
        self._weights, self._start = pulled(run.network, "all"), {}
        self._new = frozenset(pulled(run.network, "head") if run.network.new_head else ())

    def backward_done(self, run: Run) -> None:
        for name, weight in with_gradient(run, self._weights):
            if name in self._new:
                weight.grad.add_(weight.detach(), alpha=self._of_head)
                continue
            if name not in self._start:
                # The run's own copy, which lies in the processor's memory.
                self._start[name] = run.start[name].to(weight.device)
            weight.grad.add_(weight.detach() - self._start[name], alpha=self._strength)


@dataclass(frozen=True, slots=True)
class L2Sp:
    """L2-SP: weights pulled to where the fine-tuning began, not to zero (1802.01483).

        L(w) + α/2 Σ (w − w⁰)² + β/2 Σ v²

    over the pretrained weights w, which began at w⁰, and those of a new head v, which have no start
    worth keeping (equation 4 of the paper). ``strength`` is α, ``head`` β, in nats per squared unit
    of weight; a head that is pretrained too (a language model's) is among w. Unlike
    ``train.weight_decay``, which pulls away from what was pretrained, it holds on to it."""

    strength: float = setting(0.01, above=0)
    head: float = setting(0.01, least=0)


def _of_l2_sp(asked: L2Sp) -> Parts:
    return penalty("l2_sp", "all", lambda: TowardsStart(asked.strength, asked.head))


METHODS.add("l2_sp", Method(L2Sp, _of_l2_sp))
