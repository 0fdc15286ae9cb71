"""An inner loop over all weights: a task's support rows, a head that begins at their prototypes,
and a few steps of plain gradient descent on both."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from holdfast.core.records import Ints
from holdfast.episodes.reader import Reader


@dataclass(slots=True)
class Head:
    """A last layer over features × √s: ``weight`` [ways, D], ``bias`` [ways]."""

    weight: Tensor
    bias: Tensor
    unit: float

    def __call__(self, features: Tensor) -> Tensor:
        return self.unit * features @ self.weight.T + self.bias


def at_prototypes(features: Tensor, labels: Tensor, ways: int, scale: float) -> Head:
    """The head whose answers are those of the nearest mean: with c the means of the features × √s,
    weight 2c and bias −‖c‖² (Snell et al. 2017, section 2.4; as the beginning of an inner loop
    Triantafillou et al. 2020, arXiv 1903.03096). It fits any number of ways."""
    unit = scale**0.5
    means = torch.stack([features[labels == one].mean(dim=0) for one in range(ways)]) * unit
    return Head(2 * means, -(means**2).sum(dim=1), unit)


# Of the gradient over body and head in one inner step.
CLIP = 1.0


def descend(
    reader: Reader, batches: Sequence[tuple[Ints, Ints]], ways: int, rate: float
) -> tuple[Head, float]:
    """A step of gradient descent at ``rate`` for each of ``batches`` (rows and their labels below
    ``ways``), on the network in place and on a head that begins at the first batch's prototypes;
    gives the head and the loss before the first step.

    The network computes as it does in evaluation, without dropout and with the statistics that its
    norms have: so a task is met in training just as it is later. A gradient longer than ``CLIP`` is
    shortened to it.
    """
    reader.network.eval()
    weights, head, first = reader.learns, None, 0.0
    for rows, wanted in batches:
        labels = torch.as_tensor(wanted, device=reader.device)
        features = reader.features(rows)
        if head is None:
            head = at_prototypes(features.detach(), labels, ways, reader.scale)
        head.weight.requires_grad_()
        head.bias.requires_grad_()
        loss = nn.functional.cross_entropy(head(features), labels)
        first = first or float(loss.detach())
        own = (head.weight, head.bias)
        found = torch.autograd.grad(loss, [*weights, *own], allow_unused=True)
        gradients = [g for g in found if g is not None]
        length = float(torch.sqrt(sum((g**2).sum() for g in gradients)))  # type: ignore[arg-type]
        stride = rate * min(1.0, CLIP / length) if length else 0.0
        with torch.no_grad():
            for weight, gradient in zip([*weights, *own], found, strict=True):
                if gradient is not None:
                    weight.sub_(stride * gradient)
        head = Head(head.weight.detach(), head.bias.detach(), head.unit)
    assert head is not None
    return head, first


@contextlib.contextmanager
def put_back(weights: Sequence[nn.Parameter]) -> Iterator[list[Tensor]]:
    """The weights as they are at the beginning, which they are again at the end."""
    before = [weight.detach().clone() for weight in weights]
    try:
        yield before
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)


def follow(reader: Reader, rows: Ints) -> None:
    """Let batch norms see the rows: what inner loops do in evaluation mode tells them nothing."""
    if reader.has_norms:
        reader.network.train()
        with torch.no_grad():
            reader.features(rows)
    reader.network.eval()
