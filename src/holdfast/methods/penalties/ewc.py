"""Elastic weight consolidation: weights that mattered stay near where they were (1612.00796).

    the update's gradient += λ · F_i · (w_i − w₀_i),   F_i = mean over general rows of (∂ℓ ÷ ∂w_i)²

with w₀ before the first step and F the diagonal of the empirical Fisher information there, one row
at a time, scaled to a mean of 1 over all weights that learn: λ then means the same for every model
(with the paper's plain F it must be set anew for each). The quadratic around the start is that of
one earlier task. It is clipped with the gradient. ``l2_sp`` is the same with F = 1; ``replay`` and
``kl_start`` hold answers and leave the weights free, which is what they are measured against.

F is worked out from ``data.general`` (or from what a model wrote itself, see ``replay``), at
most ``rows`` of it, with the first update; again when a run is continued, since it depends on the
start alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from holdfast.core.events import Place
from holdfast.methods.registry import METHODS, Method, Parts, setting
from holdfast.models.compute.prefix import train_mode
from holdfast.training.task import device_batch

if TYPE_CHECKING:
    import torch

    from holdfast.training.run import Run


@dataclass(frozen=True, slots=True)
class EWC:
    """The settings: ``weight`` is λ, of a Fisher information whose mean is 1; ``rows`` of the
    general ones that it is worked out from, at most."""

    weight: float = setting(0.01, above=0, most=1e6)
    rows: int = setting(200, least=1, most=100_000, whole=True)


def fisher(run: Run, rows: int) -> dict[str, torch.Tensor]:
    """The mean of the squared gradients of single general rows, at most ``rows`` of them, by name
    of what learns; scaled to a mean of 1 over all of it. In evaluation mode, without dropout."""
    import torch

    job, learning = run.job, run.learning_parameters()
    examples = job.general_rows
    assert examples is not None
    sums = {name: torch.zeros_like(weight) for name, weight in learning.items()}
    was_training = run.network.training
    # A layer whose turn has not come (unfreeze) or that an action froze mattered all the same.
    still = [weight for weight in learning.values() if not weight.requires_grad]
    for weight in still:
        weight.requires_grad_(True)
    run.network.eval()
    for place in range(min(rows, len(examples))):
        batch = device_batch(job.task, examples, np.array([place]), job.accelerator.device)
        with job.accelerator.autocast():
            loss = job.task.losses(job.task.forward(run.network, batch), batch).sum()
        found = torch.autograd.grad(loss, list(learning.values()), allow_unused=True)
        for name, gradient in zip(learning, found, strict=True):
            if gradient is not None:
                sums[name].addcmul_(gradient, gradient)
    for weight in still:
        weight.requires_grad_(False)
    if was_training:
        train_mode(run.network)
    total = sum(float(each.sum()) for each in sums.values())
    mean = total / sum(each.numel() for each in sums.values())
    return {name: each / mean for name, each in sums.items()} if mean > 0 else sums


class Consolidate:
    """The listener. It has no state: what it holds is a function of the start."""

    name: ClassVar[str] = "ewc"
    place: ClassVar[Place] = "change"

    def __init__(self, asked: EWC) -> None:
        self._asked = asked
        self.fisher: dict[str, torch.Tensor] = {}

    def backward_done(self, run: Run) -> None:
        if self.fisher.keys() != run.learning_parameters().keys():
            with run.at_start():
                self.fisher = fisher(run, self._asked.rows)
        for name, weight in run.learning_parameters().items():
            if weight.grad is not None:
                away = weight.detach() - run.start[name].to(weight.device)
                weight.grad.addcmul_(self.fisher[name], away, value=self._asked.weight)


METHODS.add(
    "ewc",
    Method(EWC, lambda asked: Parts(listeners=lambda: (Consolidate(asked),)), needs_general=True),
)
