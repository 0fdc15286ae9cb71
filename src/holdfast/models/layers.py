"""A network's layers in order, and what is done by layer: freezing, rates, counting."""

from __future__ import annotations

import fnmatch
from typing import Any

from torch import nn

from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision
from holdfast.models.adapters.quantize import size_of
from holdfast.models.base import Layer, Network, Weights

SETTING = "model.freeze"
# Suffix of a group's name; whether LoRA+'s rate is meant; whether weights decay.
GROUPS = (("", False, True), (" (no decay)", False, False), (" (lora_B)", True, True))


def freeze(network: Network, what: int | float | str | None) -> Decision | None:
    """Stop training the first layers, or whatever a pattern names. All else is trained.

    Parameters
    ----------
    what : ``None``: nothing (returns ``None``). A whole number n: the first n layers, the
        embeddings being the first. A fraction in (0, 1): that share of the layers before the
        head, rounded down. A text: a number as above, ``"backbone"`` (all but pooler and head),
        or comma-separated shell patterns of layer or parameter names, e.g. ``"embeddings"``,
        ``"block.[0-2]"``, ``"*.LayerNorm.*"``.

    Raises
    ------
    RecipeError : nothing is named by it, or nothing would be left to train.
    """
    adapter = network.adapter
    never_learn = (adapter.held if adapter else frozenset()) | network.fixed
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) not in never_learn)
    if what is None:
        return None
    frozen = _named(network, _number(what))
    for parameter in frozen:
        parameter.requires_grad_(False)
    total, trainable = count_parameters(network)
    must_learn = (network.head if network.new_head else network).parameters()
    if not any(parameter.requires_grad for parameter in must_learn):
        raise RecipeError(
            SETTING,
            "leaves nothing to learn, or freezes a head that is new",
            what,
            f"Layers: {_names(network)}.",
        )
    because = f"{SETTING}={what}: {trainable:,} of {total:,} parameters are trained"
    return Decision("frozen layers", str(what), because)


def count_parameters(network: Weights) -> tuple[int, int]:
    """All parameters, and those that are trained; quantised ones as many as they were."""
    sizes = [(size_of(p), p.requires_grad) for p in network.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


def parameter_groups(
    network: Network,
    learning_rate: float,
    *,
    weight_decay: float = 0.0,
    layer_decay: float = 1.0,
    head_learning_rate: float | None = None,
) -> list[dict[str, Any]]:
    """Groups for a PyTorch optimizer, of the trained parameters only.

    Pooler and head have depth 0, the last block 1, the embeddings the largest depth; the rate is
    ``learning_rate`` · ``layer_decay`` ^ depth (Howard and Ruder 2018, 1801.06146). The head's
    may be given apart, and LoRA+'s second matrices have ``rate_ratio`` times theirs. Norms and
    biases, every parameter of fewer than two dimensions, have no weight decay. Each group has
    ``params``, ``lr``, ``weight_decay``, ``name`` and ``depth``.
    """
    groups: list[dict[str, Any]] = []
    adapter = network.adapter
    fast, ratio = (adapter.fast, adapter.spec.rate_ratio or 1.0) if adapter else (frozenset(), 1.0)
    for layer, depth in _depths(network):
        rate = learning_rate * layer_decay**depth
        if layer.name == "head" and head_learning_rate is not None:
            rate = head_learning_rate
        learns = [p for p in layer.parameters() if p.requires_grad]
        for suffix, quick, decayed in GROUPS:
            chosen = [p for p in learns if (id(p) in fast, p.ndim > 1) == (quick, decayed)]
            if chosen:
                groups.append(
                    {
                        "params": chosen,
                        "lr": rate * ratio if quick else rate,
                        "weight_decay": weight_decay if decayed else 0.0,
                        "name": f"{layer.name}{suffix}",
                        "depth": depth,
                    }
                )
    return groups


def _depths(network: Network) -> list[tuple[Layer, int]]:
    layers = network.layers()
    last = sum(layer.name not in ("pooler", "head") for layer in layers)
    return [(layer, max(0, last - index)) for index, layer in enumerate(layers)]


def _number(what: int | float | str) -> int | float | str:
    # ``--set`` hands words on: "3" is three layers, "0.5" a share.
    for kind in (int, float):
        try:
            return kind(what) if isinstance(what, str) else what
        except ValueError:
            continue
    return what


def _named(network: Network, what: int | float | str) -> list[nn.Parameter]:
    below = [layer for layer in network.layers() if layer.name != "head"]
    if isinstance(what, str):
        return _matching(network, what)
    share = isinstance(what, float) and 0 < what < 1
    if not share and what not in range(len(below) + 1):
        raise RecipeError(
            SETTING,
            f"must be a number up to {len(below)}, a share between 0 and 1, or names",
            what,
            f"Layers: {_names(network)}.",
        )
    # Rounded down: a share never freezes more than was asked for.
    count = int(what * len(below)) if share else int(what)
    return [parameter for layer in below[:count] for parameter in layer.parameters()]


def _matching(network: Network, text: str) -> list[nn.Parameter]:
    found: list[nn.Parameter] = []
    for pattern in (part.strip() for part in text.split(",")):
        matched = _match(network, pattern)
        if not matched:
            raise RecipeError(
                SETTING, "names no layer and no parameter", pattern, f"Layers: {_names(network)}."
            )
        found += matched
    return found


def _match(network: Network, pattern: str) -> list[nn.Parameter]:
    if pattern == "backbone":
        return list(network.backbone.parameters())
    by_layer = [
        parameter
        for layer in network.layers()
        if fnmatch.fnmatchcase(layer.name, pattern)
        for parameter in layer.parameters()
    ]
    by_name = [
        parameter
        for name, parameter in network.named_parameters()
        if fnmatch.fnmatchcase(name, pattern)
    ]
    return by_layer + by_name


def _names(network: Network) -> str:
    return ", ".join(layer.name for layer in network.layers())
