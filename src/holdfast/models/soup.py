"""Model soup: one model whose weights are the mean of those of several (Wortsman et al.,
2203.05482).

It predicts in the time and memory of one model, while an average of predictions costs every member.
The mean of weights is meaningful only if the members were fine-tuned from one model and stayed
close to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

State = Mapping[str, torch.Tensor]

# Of ``distance``. Models of one start lie far below it; independent ones near 2.
MAX_DISTANCE = 0.7


def mean_state(states: Iterable[State]) -> dict[str, torch.Tensor]:
    """The mean of each tensor, in double precision and then its own; whole numbers (positions, a
    count of batches) are those of the first. All must have the same names and shapes; they are
    read one after the other."""
    totals: dict[str, torch.Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    count = 0
    for state in states:
        count += 1
        for name, tensor in state.items():
            if name not in totals:
                dtypes[name] = tensor.dtype
                totals[name] = tensor.detach().clone()
                if tensor.is_floating_point():
                    totals[name] = totals[name].double()
            elif tensor.is_floating_point():
                totals[name] += tensor.detach().double()
    return {
        name: (total / count).to(dtypes[name]) if dtypes[name].is_floating_point else total
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

    A median, since a head is reinitialized by each run, and one layer of large constants (of which
    mean pooling is made in a plain model) would hide all others in a sum.
    """
    distances = []
    for name, tensor in first.items():
        if tensor.is_floating_point() and tensor.ndim > 1:
            a, b = tensor.detach().double(), second[name].detach().double()
            size = float(((a + b) / 2).norm())
            distances.append(float((a - b).norm()) / size if size else 0.0)
    return float(torch.tensor(distances, dtype=torch.float64).median()) if distances else 0.0


def greedy_soup(
    member_losses: Sequence[float], loss_of: Callable[[Sequence[int]], float]
) -> tuple[tuple[int, ...], float]:
    """The indices of a soup's members, ascending, and its loss: starting with the best member, each
    next one is added if the soup's loss does not increase (2203.05482, recipe 1).
    ``member_losses`` [members] are the members' losses, ``loss_of`` gives that of a soup of members
    by their indices, ascending; both on rows that none of them was trained on."""
    order = sorted(range(len(member_losses)), key=lambda place: (member_losses[place], place))
    selected, best = [order[0]], member_losses[order[0]]
    for place in order[1:]:
        loss = loss_of(sorted([*selected, place]))
        if loss <= best:
            selected, best = [*selected, place], loss
    return tuple(sorted(selected)), best
