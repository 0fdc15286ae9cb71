"""What a model says of a row of which only some units are left: the one thing that every kind of
task must bring for its answers to be explained; and what that says of each unit, by leaving it out
and by integrated gradients (arXiv 1703.01365).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from holdfast.contract.predictions import Bools
from holdfast.core.records import Floats, Ints, log_sum_exp

if TYPE_CHECKING:
    from torch import Tensor, nn

# Points of the Gauss–Legendre rule: exact for a gradient that is a polynomial of degree 31.
STEPS = 16
# Values of the inputs that are passed together.
TOGETHER = 1 << 20


class MaskedScore:
    """The score of a row with some of its ``units`` taken away; each set of units is asked once.

    ``ask`` maps kept units [m, units] to scores [m]. ``passes`` counts the rows that the model was
    asked.
    """

    def __init__(self, ask: Callable[[Bools], Floats], units: int) -> None:
        self._ask = ask
        self._known: dict[bytes, float] = {}
        self.units = units
        self.passes = 0

    def __call__(self, kept: Bools) -> Floats:
        keys = [line.tobytes() for line in np.packbits(kept, axis=1)]
        new = {key: place for place, key in enumerate(keys) if key not in self._known}
        if new:
            self.passes += len(new)
            found = self._ask(kept[list(new.values())])
            self._known.update(zip(new, map(float, found), strict=True))
        return np.asarray([self._known[key] for key in keys])

    @property
    def whole(self) -> float:
        """The score of the row as it is."""
        return float(self(np.ones((1, self.units), dtype=bool))[0])

    @property
    def empty(self) -> float:
        """The score with every unit taken away."""
        return float(self(np.zeros((1, self.units), dtype=bool))[0])


@dataclass(frozen=True)
class Case:
    """One answer of a model to one row, to be explained.

    ``target`` is the answer; ``kept`` gives its score, in ``measure`` (``log-odds``, ``output`` or
    ``log probability``), with some units taken away. ``gradients()`` [units] are the integrated
    gradients of the same score, ``None`` where the model cannot be asked for them; ``gap`` of them
    is how far their sum is from the difference that they stand for. ``chance`` turns scores into
    probabilities; ``None`` where there are none.
    """

    target: str
    measure: str
    kept: MaskedScore
    gradients: Callable[[], Gradients] | None = None
    chance: Callable[[Floats], Floats] | None = None


@dataclass(frozen=True, slots=True)
class Gradients:
    """``values`` [units]; ``gap`` between their sum and the difference of the two ends; ``passes``
    forward and backward."""

    values: Floats
    gap: float
    passes: int


def leave_one_out(kept: MaskedScore) -> Floats:
    """What each unit adds to the score [units]: the score of the row less that of the row without
    the unit.

    Where a unit is taken away by the mask token, this is what sequential integrated gradients with
    the mask as their start (arXiv 2305.15853) sum to over a unit, exactly: along the straight way
    from the masked unit to the unit itself nothing else changes, so the integral of the gradient is
    the difference of its ends. It takes one pass a unit instead of one for every unit and step.
    """
    return kept.whole - kept(~np.eye(kept.units, dtype=bool))


def chance_of_odds(scores: Floats) -> Floats:
    """Log-odds → probability."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -np.asarray(scores, dtype=np.float64))))


def log_odds(logits: Floats, place: int) -> Floats:
    """Logits [m, classes] → the log-odds [m] of the class at ``place`` against all others."""
    wide = np.asarray(logits, dtype=np.float64)
    others = np.delete(wide, place, axis=1)
    return np.asarray(wide[:, place] - log_sum_exp(others))


def sums(pieces: Floats, owner: Ints, units: int) -> Floats:
    """Values of pieces [T] → of units [units] by their ``owner`` [T]; those of no unit (−1) are
    left out."""
    inside = owner >= 0
    found = np.bincount(owner[inside], weights=pieces[inside], minlength=units)
    return np.asarray(found, dtype=np.float64)


def rounded(value: float | None, digits: int = 4) -> float | None:
    """A number as JSON has it; ``None`` for one that is not finite."""
    return None if value is None or not math.isfinite(value) else round(float(value), digits)


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
