"""What says of each layer whether it should learn: how much the task's gradient asks of it, and how
far a linear probe gets on what it gives.

    relative gradient of a layer:  ‖∂L/∂w‖ ÷ ‖w‖  over its weights together (2210.11466, Auto-RGN)

The paper lets layers move by this ratio, and finds that those of which little is asked are better
left alone where the data differ little from what was pretrained on. Left alone from the bottom they
also cost neither gradient nor pass back. Numbers are compared within one network only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from holdfast.models.base import Layer, Network
from holdfast.models.encoders.pooling import masked_mean

# Of the largest relative gradient of a block: a layer of which less is asked is left alone.
LITTLE = 0.5


@dataclass(frozen=True, slots=True)
class LayerSeen:
    """One layer: its ``name``, its relative ``gradient``, and of a probe on what it gives, out of
    fold, the log ``loss`` in nats and the share of ``right`` answers; ``None`` where there is no
    class to tell."""

    name: str
    gradient: float
    loss: float | None = None
    right: float | None = None


def relative_gradient(layer: Layer) -> float:
    """‖g‖ ÷ ‖w‖ over those parameters of a layer that have a gradient; 0 where none has."""
    pairs = [(p.grad, p) for p in layer.parameters() if p.grad is not None]
    if not pairs:
        return 0.0
    gradient = math.sqrt(sum(float(g.double().square().sum()) for g, _ in pairs))
    size = math.sqrt(sum(float(p.detach().double().square().sum()) for _, p in pairs))
    return gradient / size if size else 0.0


def left_alone(seen: Sequence[LayerSeen]) -> int:
    """How many of the layers below the head, in their order, are best left as they are.

    From the bottom up, as long as less than half of the largest relative gradient is asked of
    a layer; at most half of them, since a gradient at the start says nothing of the course.
    """
    most = max((one.gradient for one in seen), default=0.0)
    count = 0
    for one in seen[: len(seen) // 2]:
        if not one.gradient < LITTLE * most:
            break
        count += 1
    return count


@contextmanager
def outputs_of(layers: Sequence[Layer]) -> Iterator[Callable[[], dict[str, torch.Tensor]]]:
    """In this block each pass leaves what each layer gives, by name; a call asks for it. What the
    embeddings give is what the first block is given."""
    found: dict[str, torch.Tensor] = {}
    blocks = [layer for layer in layers if layer.name != "embeddings"]
    with ExitStack() as hooks:
        if blocks and len(blocks) < len(layers):
            hooks.enter_context(
                blocks[0]
                .modules[0]
                .register_forward_pre_hook(
                    lambda _, args, named: found.update(
                        embeddings=args[0] if args else named["hidden_states"]
                    ),
                    with_kwargs=True,
                )
            )
        for layer in blocks:
            hooks.enter_context(
                layer.modules[0].register_forward_hook(
                    lambda _, args, out, name=layer.name: found.update(
                        {name: out if isinstance(out, torch.Tensor) else out[0]}
                    )
                )
            )
        yield lambda: dict(found)


def pooled(states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The mean over the places of each row [batch, width]: of states [batch, places, width] those
    of ``mask`` [batch, places], of a picture's maps [batch, width, height, width] all."""
    if states.ndim == 4:
        return states.float().mean(dim=(2, 3))
    if states.ndim == 2:
        return states.float()
    fits = mask is not None and mask.shape == states.shape[:2]
    return masked_mean(states.float(), mask if fits else None)


def below_head(network: Network) -> list[Layer]:
    """The layers that may be left alone: embeddings and blocks."""
    return [layer for layer in network.layers() if layer.name not in ("pooler", "head")]


def clear(network: Network) -> None:
    """No gradient is left behind."""
    for parameter in network.parameters():
        parameter.grad = None
