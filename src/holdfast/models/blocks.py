"""The layers of a stack of blocks (a decoder), found by its structure, not by its name."""

from __future__ import annotations

import re

from torch import nn

from holdfast.core.errors import ModelError
from holdfast.models.base import Layer

_LAST = re.compile(r"^(norm|ln_f|final_.*|last_.*|.*_f|project_out)$")


def blocks_in_order(body: nn.Module, count: int) -> list[Layer]:
    """Embeddings, then each of the ``count`` blocks; what follows the blocks (a last norm) belongs
    to the last of them. Every weight of ``body`` is in exactly one layer.

    Raises ``ModelError`` where no list of so many blocks is found.
    """
    stack, before, after = _find(body, count)
    layers = [Layer("embeddings", tuple(before))]
    for index, block in enumerate(stack):
        tail = tuple(after) if index == len(stack) - 1 else ()
        layers.append(Layer(f"block.{index}", (block, *tail)))
    return layers


def _find(body: nn.Module, count: int) -> tuple[nn.ModuleList, list[nn.Module], list[nn.Module]]:
    """The list of blocks, and the modules with weights (or dropout) before and after it."""
    children = list(body.named_children())
    for at, (_, child) in enumerate(children):
        # By its length alone: names of this list differ from one architecture to the next.
        if isinstance(child, nn.ModuleList) and len(child) == count:
            before = [m for name, m in children[:at] if not _LAST.match(name)]
            after = [m for name, m in children[:at] if _LAST.match(name)]
            return child, _weighty(before), _weighty([*after, *(m for _, m in children[at + 1 :])])
    for name, child in children:
        inner = [m for m in child.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
        if inner:
            stack, before, after = _find(child, count)
            others = _weighty([m for other, m in children if other != name])
            return stack, [*others, *before], after
    raise ModelError(
        type(body).__name__,
        f"has no list of {count} blocks",
        None,
        "This architecture's layers are not known; leave out model.freeze and layer decay.",
    )


def _weighty(modules: list[nn.Module]) -> list[nn.Module]:
    """Those with weights, and dropouts: the mode of a layer is theirs too."""
    return [
        module
        for module in modules
        if isinstance(module, nn.Dropout) or any(True for _ in module.parameters())
    ]
