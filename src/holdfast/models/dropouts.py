"""Where a network can be regularized during training: its blocks, and its dropouts by place.

Both are found by inspecting the modules, so no architecture is listed here.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from holdfast.models.base import Network

PLACES = ("embedding", "attention", "hidden", "head", "adapter")
# What an attention module calls dropouts that are not those of its probabilities.
OUTPUT_NAMES = ("out", "resid", "proj", "ff")


@dataclass(frozen=True, slots=True)
class Dropout:
    """A dropout of a network, on or off: the module and the attribute that holds its rate."""

    place: str
    module: nn.Module
    attribute: str

    @property
    def rate(self) -> float:
        return float(getattr(self.module, self.attribute))

    def set_rate(self, rate: float) -> None:
        """Use this rate from the next pass on."""
        setattr(self.module, self.attribute, rate)


def blocks_of(network: Network) -> list[nn.Module]:
    """The repeated blocks, in the order of the modules: the members of the outermost lists of
    modules in the backbone (for an encoder-decoder, of both)."""
    return [block for one in _lists(network.backbone) for block in one]


def word_tables(network: Network) -> list[nn.Embedding]:
    """Every module that looks words up in the table of word embeddings: encoder and decoder may
    each have one that shares its weights. Raises ``RecipeError`` if the inputs are not words."""
    table = network.word_embeddings.weight
    return [m for m in network.modules() if isinstance(m, nn.Embedding) and m.weight is table]


def _lists(module: nn.Module) -> list[nn.ModuleList]:
    module_lists: list[nn.ModuleList] = []
    for child in module.children():
        module_lists += [child] if isinstance(child, nn.ModuleList) else _lists(child)
    return module_lists


def dropouts_by_place(network: Network) -> list[Dropout]:
    """Every dropout, including those with rate 0.

    ``attention``: of the attention's probabilities. ``hidden``: everything else in a block.
    ``head``: before the last layer, also in the pooling. ``adapter``: on the input of LoRA's
    update. ``embedding``: all others, which come before the blocks (T5 has one there that also
    follows the last block).
    """
    in_blocks = {id(m) for block in blocks_of(network) for m in block.modules()}
    last = [getattr(network, name, None) for name in ("pool", "dropout", "head")]
    in_head = {id(m) for part in last if isinstance(part, nn.Module) for m in part.modules()}

    def place(path: str, owner: nn.Module, name: str, inside: nn.Module) -> str:
        if "lora_dropout" in path:
            return "adapter"
        if id(inside) in in_head:
            return "head"
        if id(inside) not in in_blocks:
            return "embedding"
        return "attention" if _of_attention(owner, name) else "hidden"

    dropouts: list[Dropout] = []
    for path, owner in network.named_modules():
        for name, child in owner.named_children():
            if isinstance(child, _DropoutNd):
                dropouts.append(Dropout(place(f"{path}.{name}", owner, name, child), child, "p"))
        for name, value in vars(owner).items():
            rate = "dropout" in name and type(value) in (int, float)
            if rate and not isinstance(owner, _DropoutNd):
                dropouts.append(Dropout(place(path, owner, name, owner), owner, name))
    return dropouts


def _of_attention(owner: nn.Module, name: str) -> bool:
    """Whether it belongs to the attention itself: an attention module without an inner attention
    module."""
    if "attention" in name or name.startswith("attn"):
        return True
    about = [m for m in owner.modules() if "attention" in type(m).__name__.lower()]
    return about == [owner] and not name.startswith(OUTPUT_NAMES)
