"""The outputs of a network's layers in a pass, and their mean over the places of a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch

from holdfast.models.base import Layer, Network
from holdfast.models.encoders.network import masked_mean


@contextmanager
def capture_outputs(layers: Sequence[Layer]) -> Iterator[Callable[[], dict[str, torch.Tensor]]]:
    """Capture the output of each layer, by name, in every pass inside the ``with`` block; call the
    result for the latest outputs. The output of the embeddings is the input of the first block."""
    outputs: dict[str, torch.Tensor] = {}
    blocks = [layer for layer in layers if layer.name != "embeddings"]
    with ExitStack() as hooks:
        if blocks and len(blocks) < len(layers):
            hooks.enter_context(
                blocks[0]
                .modules[0]
                .register_forward_pre_hook(
                    lambda _, args, named: outputs.update(
                        embeddings=args[0] if args else named["hidden_states"]
                    ),
                    with_kwargs=True,
                )
            )
        for layer in blocks:
            hooks.enter_context(
                layer.modules[0].register_forward_hook(
                    lambda _, args, out, name=layer.name: outputs.update(
                        {name: out if isinstance(out, torch.Tensor) else out[0]}
                    )
                )
            )
        yield lambda: dict(outputs)


def pooled(states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The mean over the positions of each row [batch, width]: of states [batch, positions, width]
    those in ``mask`` [batch, positions], of image maps [batch, width, height, width] all."""
    if states.ndim == 4:
        return states.float().mean(dim=(2, 3))
    if states.ndim == 2:
        return states.float()
    fits = mask is not None and mask.shape == states.shape[:2]
    return masked_mean(states.float(), mask if fits else None)


def below_head(network: Network) -> list[Layer]:
    """The layers that may be frozen: embeddings and blocks."""
    return [layer for layer in network.layers() if layer.name not in ("pooler", "head")]
