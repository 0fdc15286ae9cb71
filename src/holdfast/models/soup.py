"""One model whose weights are the mean of those of several: a soup (Wortsman et al., 2203.05482).

It answers as one model does, in its time and memory, where the mean of answers costs every member.
Weights have a mean that means something only where they came from one start and went not far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

State = Mapping[str, torch.Tensor]

# Of ``distance``. Models of one start lie far below it; independent ones near 2.
FAR = 0.7


@dataclass(frozen=True, slots=True)
class GreedySoup:
    """What a greedy soup took: the places of its ``members``, ascending, its ``loss`` on the rows
    that judge, and the losses of the members ``alone``."""

    members: tuple[int, ...]
    loss: float
    alone: tuple[float, ...]


def mean_state(states: Iterable[State]) -> dict[str, torch.Tensor]:
    """The mean of each tensor, in double precision and then its own; whole numbers (positions, a
    count of batches) are those of the first. All must have the same names and shapes; they are
    read one after the other."""
    totals: dict[str, torch.Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    count = 0
    for state in states:
        count += 1
        for name, tensor in state.items():
            if name not in totals:
                kinds[name] = tensor.dtype
                totals[name] = tensor.detach().clone()
                if tensor.is_floating_point():
                    totals[name] = totals[name].double()
            elif tensor.is_floating_point():
                totals[name] += tensor.detach().double()
    return {
        name: (total / count).to(kinds[name]) if kinds[name].is_floating_point else total
        for name, total in totals.items()
    }


def other_shape(first: State, second: State) -> str | None:
    """The first name at which two models differ in name or shape; ``None`` where they do not."""
    for name in sorted({*first, *second}):
        if name not in first or name not in second or first[name].shape != second[name].shape:
            return name
    return None


def distance(first: State, second: State) -> float:
    """How far two models lie apart: the median over their matrices of ‖a − b‖ ÷ ‖(a + b) ÷ 2‖.

    A median, since a head is drawn anew by each run, and one layer of large constants (of which
    mean pooling is made in a plain model) would hide all others in a sum.
    """
    apart = []
    for name, tensor in first.items():
        if tensor.is_floating_point() and tensor.ndim > 1:
            a, b = tensor.detach().double(), second[name].detach().double()
            size = float(((a + b) / 2).norm())
            apart.append(float((a - b).norm()) / size if size else 0.0)
    return float(torch.tensor(apart, dtype=torch.float64).median()) if apart else 0.0


def greedy_soup(alone: Sequence[float], loss_of: Callable[[Sequence[int]], float]) -> GreedySoup:
    """From the best member on, each next one is taken in if the soup's loss is not larger for it
    (2203.05482, recipe 1). ``alone`` [members] are the members' losses, ``loss_of`` gives that of a
    soup of members by their places; both on rows that none of them learned from."""
    order = sorted(range(len(alone)), key=lambda place: (alone[place], place))
    chosen, best = [order[0]], alone[order[0]]
    for place in order[1:]:
        tried = loss_of(sorted([*chosen, place]))
        if tried <= best:
            chosen, best = [*chosen, place], tried
    return GreedySoup(tuple(sorted(chosen)), best, tuple(alone))
