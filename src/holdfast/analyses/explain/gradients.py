"""Integrated gradients (arXiv 1703.01365) of a score, from a start to the input itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

# Points of the Gauss–Legendre rule: exact for a gradient that is a polynomial of degree 31.
STEPS = 16
# Values of the inputs that are passed together.
TOGETHER = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """``values`` [...] as the input, what each of its numbers adds; ``gap``: their sum less the
    difference of the scores at the two ends, which the rule of finitely many points leaves."""

    values: Tensor
    gap: float
    passes: int


def integrated_gradients(
    score: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, steps: int = STEPS
) -> Path:
    """The integrated gradients of ``score`` along the straight way from ``start`` to ``end``.

        values = (end − start) · ∫₀¹ ∂score(start + α (end − start)) / ∂input dα

    by the Gauss–Legendre rule of ``steps`` points. ``start`` and ``end`` [1, …] are one row;
    ``score`` maps rows [m, …] to scores [m], each row for itself. Their sum is score(end) −
    score(start), but for ``gap``. ``captum.attr.IntegratedGradients`` computes the same. With a
    start that differs from the end in one word alone it is a step of sequential integrated
    gradients (arXiv 2305.15853).
    """
    import torch

    nodes, weights = np.polynomial.legendre.leggauss(steps)
    alphas = torch.tensor((nodes + 1) / 2, dtype=end.dtype, device=end.device)
    shares = torch.tensor(weights / 2, dtype=end.dtype, device=end.device)
    shape = (-1, *[1] * (end.dim() - 1))
    total = torch.zeros_like(end)
    size = max(1, TOGETHER // max(1, end.numel()))
    for begin in range(0, steps, size):
        part = slice(begin, begin + size)
        points = (start + alphas[part].view(shape) * (end - start)).detach().requires_grad_(True)
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(score(points).sum(), points)
        total += (shares[part].view(shape) * slope).sum(dim=0, keepdim=True)
    with torch.no_grad():
        ends = float(score(end)[0]) - float(score(start)[0])
    values = (total * (end - start)).detach()
    return Path(values, float(values.double().sum()) - ends, steps + 2)


@contextmanager
def in_place_of(table: nn.Module, states: Tensor) -> Iterator[None]:
    """A model's word embeddings (``table``) give ``states`` [B, T, E], whatever they are asked."""

    def give(module: object, inputs: object, output: object) -> Tensor:
        return states

    handle = table.register_forward_hook(give)
    try:
        yield
    finally:
        handle.remove()
