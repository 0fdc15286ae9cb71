"""Where an adapter goes: the linear layers inside the repeated blocks, found by inspecting the
modules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from holdfast.core.discovery import suggest_name
from holdfast.core.errors import ModelError, RecipeError

SETTING = "model.adapter.targets"
# What IA³ scales: keys, values and the inner state of the feed-forward part (2205.05638), by the
# last part of their names in Transformers; fused projections stand for keys and values.
KEYS_AND_VALUES = (
    "key",
    "value",
    "key_proj",
    "value_proj",
    "k_proj",
    "v_proj",
    "k_lin",
    "v_lin",
    "k",
    "v",
    "qkv_proj",
    "Wqkv",
    "c_attn",
    "query_key_value",
)
FEED_FORWARD = (
    "lin2",
    "wo",
    "down_proj",
    "fc2",
    "w2",
    "mlp.Wo",
    "mlp.c_proj",
    "ffn_output",
    "dense_4h_to_h",
)


@dataclass(frozen=True, slots=True)
class Targets:
    """``names`` are relative to a block, ``lists`` the paths of the lists of blocks; ``inputs``
    are those of ``names`` whose input IA³ scales; ``stacks`` are paths of parameters [experts, …]
    inside a block that PEFT adapts as parameters."""

    lists: tuple[str, ...]
    names: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    stacks: tuple[str, ...] = ()

    @property
    def pattern(self) -> str:
        """All adapted modules, as PEFT reads a text: a regular expression over the whole name."""
        return _pattern(self.lists, self.names)

    @property
    def input_pattern(self) -> str:
        """Those of them whose input is scaled."""
        return _pattern(self.lists, self.inputs)


def find_targets(module: nn.Module, kind: str, requested: Sequence[str] | None) -> Targets:
    """The linear layers of ``module``'s blocks that an adapter of this kind goes to.

    LoRA and its relatives go to every linear layer of every block, routers included (on attention
    alone they learn less at equal size: 2106.09685 left it open, 2305.14314 measured it); IA³ to
    keys, values and the feed-forward part. ``requested`` are names of one's own, or ends of names.

    Raises
    ------
    ModelError : there is no block, or nothing in it that this kind can adapt.
    RecipeError : a name in ``requested`` matches nothing.
    """
    lists, linear, stacks = _blocks(module)
    if not linear:
        rule = "has no block of linear layers to adapt"
        raise ModelError(type(module).__name__, rule, None, "Remove model.adapter for this model.")
    if requested:
        names = _requested_layers(linear, requested)
    elif kind == "ia3":
        names = tuple(n for n in linear if _ends(n, KEYS_AND_VALUES) or _feeds_forward(n, linear))
    else:
        names = linear
    if not names:
        rule = "has no layer that is known to suit this adapter"
        remedy = f"Name some with {SETTING}, e.g. {linear[0]}."
        raise ModelError(type(module).__name__, rule, kind, remedy)
    inputs = tuple(n for n in names if _feeds_forward(n, linear)) if kind == "ia3" else ()
    return Targets(lists, names, inputs, stacks if not requested and kind != "ia3" else ())


def _blocks(module: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The outermost lists of modules that contain linear layers; the linear layers of their
    items."""
    lists: list[str] = []
    linear: dict[str, None] = {}
    stacks: dict[str, None] = {}
    for path, part in module.named_modules():
        # Lists within blocks (experts) belong to their block.
        inside = any(path.startswith(f"{outer}.") for outer in lists)
        if not isinstance(part, nn.ModuleList) or inside:
            continue
        linear_names = [
            name for block in part for name, m in block.named_modules() if _is_linear(m)
        ]
        if linear_names:
            lists.append(path)
            linear |= dict.fromkeys(linear_names)
            stacks |= dict.fromkeys(_stacks(part))
    return tuple(lists), tuple(linear), tuple(stacks)


def _is_linear(module: nn.Module) -> bool:
    # GPT-2's is a transposed one.
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _stacks(blocks: nn.ModuleList) -> list[str]:
    """Experts that a model stores as one parameter [experts, out, in], and their router if it is
    not an ``nn.Linear``."""
    names_in_order: list[str] = []
    for block in blocks:
        names = dict(block.named_parameters())
        experts = {name for name, p in names.items() if p.ndim == 3 and ".experts." in name}
        owners = {name.rpartition(".experts.")[0] for name in experts}
        routers = {f"{owner}.{end}" for owner in owners for end in ("gate.weight", "router.weight")}
        stacked = experts | routers
        names_in_order += [name for name in names if name in stacked]
    return names_in_order


def _requested_layers(linear: Sequence[str], requested: Sequence[str]) -> tuple[str, ...]:
    layers: dict[str, None] = {}
    for name in requested:
        matched = [one for one in linear if _ends(one, (name,))]
        if not matched:
            rule = "names no linear layer of this model's blocks"
            raise RecipeError(
                SETTING, rule, name, suggest_name(name, [one.rpartition(".")[2] for one in linear])
            )
        layers |= dict.fromkeys(matched)
    return tuple(layers)


def _ends(name: str, ends: Sequence[str]) -> bool:
    return any(name == end or name.endswith(f".{end}") for end in ends)


def _feeds_forward(name: str, linear: Sequence[str]) -> bool:
    """Whether it is the second layer of a feed-forward part; BERT calls it ``output.dense``."""
    bert = name == "output.dense" and "intermediate.dense" in linear
    return bert or _ends(name, FEED_FORWARD)


def _pattern(lists: Sequence[str], names: Sequence[str]) -> str:
    owners, ends = ("|".join(map(re.escape, part)) for part in (lists, names))
    return rf"(?:.*\.)?(?:{owners})\.\d+\.(?:{ends})"
