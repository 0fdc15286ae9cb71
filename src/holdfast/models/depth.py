"""A network with fewer blocks: the first step towards a smaller model.

The kept blocks keep their weights and their order; the embeddings and everything after the blocks
stay. The first block is always kept: T5's holds the table of relative positions. ``spread`` blocks
cover the depth evenly (DistilBERT took every other block, 1910.01108); the ``first`` blocks are the
lower part of the same computation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision
from holdfast.models.encoders.families import MEAN_POOLING_KEY
from holdfast.models.encoders.general import GeneralClassifier
from holdfast.models.encoders.network import EncoderClassifier
from holdfast.models.generators.causal import CausalNetwork
from holdfast.models.generators.seq2seq_network import Seq2SeqNetwork
from holdfast.models.vision.vision import VisionClassifier

if TYPE_CHECKING:
    from holdfast.models.base import Network

BlockSelection = Literal["spread", "first"]
SETTING = "model.layers"
# Names of the number of blocks in Transformers' configurations, the decoder's own among them.
COUNTS = ("num_hidden_layers", "num_layers", "encoder_layers")
DECODER_COUNTS = ("num_decoder_layers", "decoder_layers")


@dataclass(frozen=True, slots=True)
class Stack:
    """A list of blocks, ``holder.name``, and the configuration's key for their number."""

    holder: nn.Module
    name: str
    counts: tuple[str, ...]

    @property
    def blocks(self) -> nn.ModuleList:
        blocks: nn.ModuleList = getattr(self.holder, self.name)
        return blocks


def select_blocks(n_blocks: int, count: int, selection: BlockSelection) -> tuple[int, ...]:
    """The ``count`` of ``n_blocks`` blocks that are kept, counted from 0, ascending: ``spread`` at
    even distances from the first to the last, or the ``first`` ones."""
    if selection == "first" or count == 1:
        return tuple(range(count))
    return tuple(round(i * (n_blocks - 1) / (count - 1)) for i in range(count))


def depth_of(network: Network) -> int:
    """The number of blocks of a network; of an encoder and a decoder the larger number. Raises
    ``RecipeError`` if they are not a list of equal blocks."""
    return max(len(stack.blocks) for stack in _stacks(network))


def shorten(network: Network, count: int, selection: BlockSelection) -> Decision:
    """Keep ``count`` blocks of ``network`` (in an encoder-decoder, of each); the saved folder loads
    as a plain model with that many blocks.

    Raises ``RecipeError`` if there are fewer blocks, or if the blocks have different widths
    (ResNet, ConvNeXt, Swin), share their weights (ALBERT), or carry an adapter that is saved
    without them.
    """
    stacks = _stacks(network)
    most = max(len(stack.blocks) for stack in stacks)
    if not 1 <= count <= most:
        rule = f"must be at least 1 and at most the {most} blocks of the model"
        raise RecipeError(SETTING, rule, count, "Remove it to keep all of them.")
    if network.adapter is not None and not network.adapter.spec.merge:
        rule = "works with an adapter only if it is merged: its folder would name the full model"
        raise RecipeError(SETTING, rule, count, "Add --set model.adapter.merge=true.")
    kept_blocks = []
    for stack in stacks:
        n_blocks = len(stack.blocks)
        positions = select_blocks(n_blocks, min(count, n_blocks), selection)
        _keep_blocks(network, stack, positions)
        kept_blocks.append(f"{', '.join(str(i + 1) for i in positions)} of {n_blocks}")
    part_names = ("encoder ", "; decoder ") if len(kept_blocks) > 1 else ("",)
    shown = "".join(name + one for name, one in zip(part_names, kept_blocks, strict=True))
    because = f"{SETTING}={count}, {selection}: the other blocks are removed, the rest is unchanged"
    return Decision("blocks", shown, because)


def _stacks(network: Network) -> list[Stack]:
    """The lists of blocks of a network."""
    if isinstance(network, Seq2SeqNetwork):
        encoder_decoder = network.plain.base_model
        return [
            _stack_of(encoder_decoder.encoder, COUNTS),
            _stack_of(encoder_decoder.decoder, DECODER_COUNTS),
        ]
    if isinstance(network, (CausalNetwork, GeneralClassifier, VisionClassifier)):
        body: Any = network.backbone
        if isinstance(network, VisionClassifier):
            if network.family is not None and network.family.inside is not None:
                raise _no_list(network.family.name, "its blocks are in stages of different widths")
            body = body.base_model
        count = int(getattr(network.config, "num_hidden_layers", 0))
        for holder in body.modules():
            for name, child in holder.named_children():
                if isinstance(child, nn.ModuleList) and len(child) == count:
                    return [Stack(holder, name, COUNTS)]
        raise _no_list(type(body).__name__, f"it has no list of {count} blocks")
    assert isinstance(network, EncoderClassifier)
    family = network.family
    if family.name == "ALBERT":
        raise _no_list(family.name, "its blocks share one set of weights")
    parent, _, name = family.blocks.rpartition(".")
    return [Stack(network.backbone.get_submodule(parent), name, (*COUNTS, family.count))]


def _stack_of(module: nn.Module, counts: tuple[str, ...]) -> Stack:
    for name in ("block", "layers"):
        if isinstance(getattr(module, name, None), nn.ModuleList):
            return Stack(module, name, counts)
    raise _no_list(type(module).__name__, "its blocks are not where this version expects them")


def _no_list(name: str, why: str) -> RecipeError:
    return RecipeError(
        SETTING, f"is not supported for {name}: {why}", None, "Remove it, or name a smaller model."
    )


def _keep_blocks(network: Network, stack: Stack, positions: Sequence[int]) -> None:
    n_blocks, blocks = len(stack.blocks), list(stack.blocks)
    kept_blocks = nn.ModuleList([blocks[i] for i in positions])
    setattr(stack.holder, stack.name, kept_blocks)
    for index, block in enumerate(kept_blocks):
        each: Any = block.modules()
        for module in each:
            # Where a block's keys and values lie while a text is written.
            if isinstance(getattr(module, "layer_idx", None), int):
                module.layer_idx = index
    configs = [getattr(m, "config", None) for m in (network, stack.holder, *network.modules())]
    for config in {id(one): one for one in configs if one is not None}.values():
        plain = config.to_dict()
        for key in stack.counts:
            if getattr(config, key, None) == n_blocks:
                setattr(config, key, len(positions))
        # What it says block by block.
        for key, value in plain.items():
            if "layer" in key and isinstance(value, list) and len(value) == n_blocks:
                setattr(config, key, [value[i] for i in positions])


def stated_depth(config: Mapping[str, Any]) -> int | None:
    """The number of blocks in a ``config.json``, without the one that carries mean pooling in a
    saved folder; ``None`` if it gives none."""
    counts = (*COUNTS, "n_layers", "n_layer")
    depth = next((config[key] for key in counts if isinstance(config.get(key), int)), None)
    return None if depth is None else int(depth) - bool(config.get(MEAN_POOLING_KEY))
