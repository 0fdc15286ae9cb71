"""The image architectures that Holdfast knows by name, and where each keeps its parts; of others
the layers are found by walking their modules.

All paths are those of Transformers' plain ``…ForImageClassification`` classes.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from holdfast.core.errors import ModelError
from holdfast.models.base import Layer


@dataclass(frozen=True, slots=True)
class VisionFamily:
    """One architecture.

    ``base`` is the attribute that holds the backbone, ``last`` the last linear layer. ``blocks`` is
    the backbone's list of blocks, or of stages where ``inside`` names the list of blocks in each;
    the other modules of a stage go ``before`` its first block, or after its last one.
    ``embeddings`` and ``tail`` are backbone modules before and after the blocks.
    """

    name: str
    base: str
    last: str
    embeddings: str
    blocks: str
    inside: str | None = None
    before: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()


_CONVNEXT = VisionFamily(
    "ConvNeXt",
    "convnext",
    "classifier",
    "embeddings",
    "encoder.stages",
    "layers",
    ("downsampling_layer",),
    ("layernorm",),
)
_SWIN = VisionFamily(
    "Swin", "swin", "classifier", "embeddings", "encoder.layers", "blocks", tail=("layernorm",)
)

VISION_FAMILIES: dict[str, VisionFamily] = {
    "resnet": VisionFamily(
        "ResNet", "resnet", "classifier.1", "embedder", "encoder.stages", "layers"
    ),
    "convnext": _CONVNEXT,
    "convnextv2": replace(_CONVNEXT, name="ConvNeXt V2", base="convnextv2"),
    "vit": VisionFamily("ViT", "vit", "classifier", "embeddings", "layers", tail=("layernorm",)),
    "swin": _SWIN,
    "swinv2": replace(_SWIN, name="Swin V2", base="swinv2"),
}


def image_layers(plain: nn.Module, family: VisionFamily) -> list[Layer]:
    """Embeddings, then each block; every weight but the head's is in exactly one layer. What joins
    two stages belongs to the nearest block, the last norm to the last block."""
    backbone: Any = plain.get_submodule(family.base)
    groups: list[tuple[nn.Module, ...]] = []
    for stage in _blocks(backbone, family):
        if family.inside is None:
            groups.append((stage,))
            continue
        others = [(n, m) for n, m in stage.named_children() if n != family.inside]
        blocks: list[tuple[nn.Module, ...]] = [
            (block,) for block in stage.get_submodule(family.inside).children()
        ]
        first = [m for name, m in others if name in family.before]
        last = [m for name, m in others if name not in family.before]
        blocks[0] = (*first, *blocks[0])
        blocks[-1] = (*blocks[-1], *last)
        groups += blocks
    groups[-1] = (*groups[-1], *(getattr(backbone, name) for name in family.tail))
    layers = [Layer(f"block.{index}", modules) for index, modules in enumerate(groups)]
    return [Layer("embeddings", (backbone.get_submodule(family.embeddings),)), *layers]


def _blocks(backbone: nn.Module, family: VisionFamily) -> list[nn.Module]:
    # Earlier releases of Transformers keep ViT's blocks one level deeper.
    names = (family.blocks, "encoder.layer")
    for name in names:
        with contextlib.suppress(AttributeError):
            return list(backbone.get_submodule(name).children())
    raise ModelError(family.name, "has no blocks where this version expects them", names)
