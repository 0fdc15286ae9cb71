"""L2 as a term of the loss: the penalty's gradient goes through the optimizer (Krogh and Hertz
1991).

    L(w) + λ/2 Σ w²,   so the gradient of an update is ∇L + λw

``strength`` is λ, in nats per squared unit of weight. With plain SGD this is weight decay of ηλ an
update. With Adam it is not (1711.05101): λw is divided by the root of the gradient's mean square
like the rest, so weights with large gradients are hardly pulled; ``train.weight_decay`` of
``adamw`` is decoupled, w ← w − ηλw for all alike, and is neither clipped nor averaged over updates.
The clip sees this term, since it is part of the gradient. ``methods/penalties/l2_sp.py`` pulls to
the start.
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
    """``strength`` is λ; ``place`` the weights that are pulled: ``all`` or ``head``."""

    strength: float = setting(0.01, above=0)
    place: str = setting("all", words=PLACES)


def _parts(asked: L2) -> Parts:
    return penalty("l2", asked.place, lambda: SquaredWeights(asked.strength, asked.place))


METHODS.add("l2", Method(L2, _parts))
