"""The recipe's number of blocks, taken off what was loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from holdfast.models.base import Loaded
from holdfast.models.layers import count_parameters
from holdfast.recipe import Recipe

L = TypeVar("L", bound=Loaded)


def with_layers(loaded: L, recipe: Recipe) -> L:
    """What a loader gave, with as many blocks as ``model.layers`` says."""
    if recipe.model.layers is None:
        return loaded
    from holdfast.models.depth import shorten

    told = shorten(loaded.network, recipe.model.layers, recipe.model.layers_kept)
    total, trainable = count_parameters(loaded.network)
    facts = {
        **loaded.facts,
        "parameters": total,
        "trainable": trainable,
        "layers": len(loaded.network.layers()),
    }
    # Every loader's value is a dataclass, which a protocol cannot say.
    return replace(loaded, facts=facts, decisions=(*loaded.decisions, told))  # type: ignore[type-var]
