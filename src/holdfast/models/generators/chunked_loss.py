"""The losses of target tokens without the logits of all of them.

The logits of a batch, [targets, vocabulary] in float32 with their gradient beside them, are the
largest thing in the memory of a language model with a large vocabulary: 3 GB for 2,048 targets of
128,000 words. Here the last layer takes a few targets at a time, and the backward pass computes
their logits once more (as 2410.10989 and 2411.09009 do in kernels of their own; in PyTorch's
checkpoints any last layer will do: tied, with an adapter, spread over processes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from torch import nn

# Bytes of float32 logits that are there at once: beyond this nothing is gained in speed.
AT_ONCE = 64_000_000


def targets_at_once(vocabulary: int) -> int:
    """Of how many target tokens the logits are computed together."""
    return max(1, AT_ONCE // (4 * vocabulary))


def chunked_losses(
    head: nn.Module, states: Tensor, expected: Tensor, together: int
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each target in nats, float32 [N], and whether it was the likeliest [N].

    ``states`` [N, H] are what ``head`` reads, ``expected`` [N] the target tokens; the logits of
    ``together`` targets are there at once. The gradient reaches states and head as that of
    ``torch.nn.functional.cross_entropy`` of all logits does, but for the order of sums.
    """
    parts: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(states), together):
        given = (head, states[start : start + together], expected[start : start + together])
        again = torch.is_grad_enabled()
        parts.append(checkpoint(_losses, *given, use_reentrant=False) if again else _losses(*given))
    if not parts:
        return states.new_zeros(0, dtype=torch.float32), expected.new_zeros(0, dtype=torch.bool)
    return torch.cat([one for one, _ in parts]), torch.cat([hit for _, hit in parts])


def _losses(head: nn.Module, states: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    logits = head(states).float()
    losses = torch.nn.functional.cross_entropy(logits, expected, reduction="none")
    return losses, logits.detach().argmax(dim=-1) == expected
