"""Layers of a pretrained network drawn anew, as its architecture draws them before pretraining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from holdfast.core.errors import ModelError, RecipeError
from holdfast.core.seeds import derive_seed
from holdfast.models.base import Layer, Network

# What Transformers marks loaded weights with; its initializers pass over them.
LOADED = "_is_hf_initialized"


def top_layers(network: Network, blocks: int) -> list[Layer]:
    """The last ``blocks`` blocks of a network and its pooler, where it has one; the lowest first.

    Raises ``RecipeError`` where there are not so many, or would be none left below.
    """
    layers = network.layers()
    stack = [layer for layer in layers if layer.name not in ("embeddings", "pooler", "head")]
    if blocks >= len(stack):
        raise RecipeError(
            "methods.reinit.blocks",
            f"must be below {len(stack)}, the blocks of this model: with all of them drawn anew "
            "nothing pretrained would be left but the embeddings",
            blocks,
            "Name fewer; 1 to 3 were of use (2006.05987).",
        )
    top = stack[len(stack) - blocks :] if blocks else []
    return [*top, *(layer for layer in layers if layer.name == "pooler")]


def redraw(network: Network, layers: Sequence[Layer], seed: int) -> None:
    """Draw the weights of ``layers`` in place, by the architecture's own initializer
    (``initializer_range`` of its configuration): the same for a seed on the same kind of device.
    The global generators stay where they are.

    Raises ``ModelError`` where that initializer does not know a matrix of theirs.
    """
    owner = _initializer(network)
    names = {id(p): name for name, p in network.named_parameters()}
    devices = {p.device for layer in layers for p in layer.parameters() if p.is_cuda}
    with torch.random.fork_rng(devices=sorted(devices, key=str)), torch.no_grad():
        torch.manual_seed(derive_seed(seed, "redraw"))
        for layer in layers:
            before = {id(p): p.detach().clone() for p in layer.parameters() if p.ndim > 1}
            for part in (part for module in layer.modules for part in module.modules()):
                _draw(owner, part)
            stuck = [names[id(p)] for p in layer.parameters() if _same(p, before)]
            if stuck:
                raise ModelError(
                    owner.__class__.__name__,
                    "does not say how these weights are drawn",
                    stuck[0],
                    "Leave methods.reinit out for this model.",
                )


def _draw(owner: Any, part: nn.Module) -> None:
    for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
        if hasattr(tensor, LOADED):
            delattr(tensor, LOADED)
    owner._init_weights(part)


def _same(parameter: nn.Parameter, before: dict[int, torch.Tensor]) -> bool:
    known = before.get(id(parameter))
    return known is not None and bool(torch.equal(known, parameter))


def _initializer(network: Network) -> Any:
    """The Transformers model whose weights these are: it knows how they are drawn."""
    for module in network.modules():
        if hasattr(module, "_init_weights"):
            return module
    raise ModelError(
        type(network).__name__,
        "is of no architecture that says how its weights are drawn",
        None,
        "Leave methods.reinit out for this model.",
    )
