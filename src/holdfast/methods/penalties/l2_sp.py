"""L2-SP: weights pulled to where the fine-tuning began, not to zero (1802.01483).

    L(w) + α/2 Σ (w − w⁰)² + β/2 Σ v²

over the pretrained weights w, which began at w⁰, and those of a new head v, which have no start
worth keeping (equation 4 of the paper). ``strength`` is α, ``head`` β, in nats per squared unit of
weight; a head that is pretrained too (a language model's) is among w. Both are part of the
gradient, so that the clip and the optimizer see them, as in ``methods/penalties/l2.py``. Unlike
``train.weight_decay``, which pulls away from what was pretrained, it holds on to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.core.events import Place
from holdfast.methods.penalties.base import penalty, pulled, with_gradient
from holdfast.methods.registry import METHODS, Method, Parts, setting

if TYPE_CHECKING:
    import torch

    from holdfast.training.run import Run


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
    """``strength`` is α, on the pretrained weights; ``head`` is β, on a new head."""

    strength: float = setting(0.01, above=0)
    head: float = setting(0.01, least=0)


def _parts(asked: L2Sp) -> Parts:
    return penalty("l2_sp", "all", lambda: TowardsStart(asked.strength, asked.head))


METHODS.add("l2_sp", Method(L2Sp, _parts))
