"""Sharpness-aware minimization: descend by the gradient of the worst point nearby (2010.01412).

    g = ∇L(w),  ε = ρ · g ÷ ‖g‖₂,  the update's gradient = ∇L(w + ε)

with one norm over all trainable weights (equation 2 of the paper, without its second-order term).
An update costs two passes. Unlike weight decay, which always pulls weights to zero, it avoids
narrow valleys of the loss, and unlike averaging of weights it acts during the descent. Both passes
see the entire update, on any number of processes (the paper's m-sharpness would perturb each
process by its own gradient), and the same dropout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from holdfast.core.settings import setting
from holdfast.core.updates import Draw, Update
from holdfast.methods.registry import METHODS, Method, Parts

if TYPE_CHECKING:
    import torch


def ascend(parameters: list[torch.nn.Parameter], rho: float) -> None:
    """Move the parameters together by ``rho`` along their gradients; not at all where these are
    0."""
    import torch

    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if not norm > 0:
        return
    with torch.no_grad():
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.add_(parameter.grad, alpha=rho / float(norm))


@dataclass(frozen=True, slots=True)
class Sam:
    """The stepper, and its setting: ``rho``, the radius; 0.05 suits most (0.01 to 0.5)."""

    rho: float = setting(0.05, above=0, most=100)
    name: ClassVar[str] = "sam"
    passes: ClassVar[int] = 2
    copies: ClassVar[int] = 1

    def __call__(self, update: Update, draw: Draw) -> float:
        import torch

        loss = update.gradients(draw)
        learning = [p for p in update.parameters if p.grad is not None]
        # A copy, since adding and subtracting ε would round.
        before = [p.detach().clone() for p in learning]
        try:
            ascend(learning, self.rho)
            update.gradients(draw, repeat_pass=True)
        finally:
            with torch.no_grad():
                for parameter, value in zip(learning, before, strict=True):
                    parameter.copy_(value)
        return loss


METHODS.add("sam", Method(Sam, lambda settings: Parts(stepper=settings)))
