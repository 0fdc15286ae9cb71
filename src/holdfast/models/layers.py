"""A network's layers in order, and operations by layer: freezing, learning rates, counting,
reinitialisation."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from holdfast.core.errors import ModelError, RecipeError
from holdfast.core.records import Decision
from holdfast.core.seeds import derive_seed
from holdfast.models.adapters.quantize import size_of
from holdfast.models.base import Layer, Network, Weights

SETTING = "model.freeze"
# Its value for all but pooler and head.
BACKBONE = "backbone"
# Suffix of a group's name; whether LoRA+'s rate is meant; whether weights decay.
PARAMETER_GROUPS = (("", False, True), (" (no decay)", False, False), (" (lora_B)", True, True))
# A module that stands before the list of blocks and computes after it, by its name.
_LAST = re.compile(r"^(norm|ln_f|final_.*|last_.*|.*_f|project_out)$")
# What Transformers marks loaded weights with; its initializers pass over them.
LOADED_MARK = "_is_hf_initialized"
# As BERT and ViT draw new weights (``initializer_range``).
HEAD_STD = 0.02


def blocks_in_order(body: nn.Module, count: int) -> list[Layer]:
    """The layers of a stack of blocks (a decoder), found by its structure and not by its name:
    embeddings, then each of the ``count`` blocks; what follows the blocks (a last norm) belongs to
    the last of them. Every weight of ``body`` is in exactly one layer.

    Raises ``ModelError`` where no list of so many blocks is found.
    """
    stack, before, after = _find(body, count)
    layers = [Layer("embeddings", tuple(before))]
    for index, block in enumerate(stack):
        tail = after if index == len(stack) - 1 else ()
        layers.append(Layer(f"block.{index}", (block, *tail)))
    return layers


def _find(body: nn.Module, count: int) -> tuple[nn.ModuleList, list[nn.Module], list[nn.Module]]:
    """The list of blocks, and the modules with weights (or dropout) before and after it."""
    children = list(body.named_children())
    for index, (_, child) in enumerate(children):
        # By its length alone: names of this list differ from one architecture to the next.
        if isinstance(child, nn.ModuleList) and len(child) == count:
            before = [m for name, m in children[:index] if not _LAST.match(name)]
            after = [m for name, m in children[:index] if _LAST.match(name)]
            return (
                child,
                _with_weights(before),
                _with_weights([*after, *(m for _, m in children[index + 1 :])]),
            )
    for name, child in children:
        if any(isinstance(m, nn.ModuleList) and len(m) == count for m in child.modules()):
            stack, before, after = _find(child, count)
            others = _with_weights([m for other, m in children if other != name])
            return stack, [*others, *before], after
    remedy = "This architecture's layers are not known; remove model.freeze and train.layer_decay."
    raise ModelError(type(body).__name__, f"has no list of {count} blocks", None, remedy)


def _with_weights(modules: list[nn.Module]) -> list[nn.Module]:
    """The modules with weights, and dropouts, because the mode of a layer applies to them too."""
    return [m for m in modules if isinstance(m, nn.Dropout) or any(True for _ in m.parameters())]


def walked_layers(plain: Any) -> list[Layer]:
    """The layers of a Transformers model of any architecture, found by walking its modules:
    embeddings, the blocks of each list (an encoder's, then a decoder's), then the pooler: what has
    weights outside the backbone. A last norm belongs to the last block. Every weight is in exactly
    one layer, a shared one in the first that has it. A backbone without a list of blocks is one
    block."""
    base: nn.Module = plain.base_model
    stacks = _block_lists(base)
    seen: set[int] = set()
    before, after = _around(base, stacks) if stacks else ([], [])
    groups = [("embeddings", before)]
    blocks = [[block] for stack in stacks for block in stack] or [[base]]
    blocks[-1] += after
    groups += [(f"block.{index}", modules) for index, modules in enumerate(blocks)]
    inside = {id(module) for module in base.modules()}
    groups.append(("pooler", [] if plain is base else _outside(plain, inside)))
    layers = [Layer(name, tuple(_unseen(modules, seen))) for name, modules in groups]
    return [layer for layer in layers if layer.modules]


def _block_lists(base: nn.Module) -> list[nn.ModuleList]:
    """The outermost lists of modules, but for those with less than a tenth of the weights of the
    largest: stems, and what is not a stack of blocks."""
    outer: dict[str, nn.ModuleList] = {}
    for name, module in base.named_modules():
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{n}.") for n in outer):
            outer[name] = module
    sizes = {name: sum(p.numel() for p in one.parameters()) for name, one in outer.items()}
    largest = max(sizes.values(), default=0)
    return [one for name, one in outer.items() if 10 * sizes[name] >= largest > 0]


def _around(
    module: nn.Module, stacks: Sequence[nn.ModuleList]
) -> tuple[list[nn.Module], list[nn.Module]]:
    """What has weights of its own before and after the stacks of blocks in a module."""
    own = list(module.parameters(recurse=False))
    before: list[nn.Module] = [nn.ParameterList(own)] if own else []
    after: list[nn.Module] = []
    held = {id(stack) for stack in stacks}
    passed = False
    for name, child in module.named_children():
        if any(id(inner) in held for inner in child.modules()):
            first, last = ([], []) if id(child) in held else _around(child, stacks)
            (after if passed else before).extend(first)
            after += last
            passed = True
        else:
            (after if passed or _LAST.match(name) else before).append(child)
    return before, after


def _outside(module: nn.Module, inside: set[int]) -> list[nn.Module]:
    """The largest modules of ``module`` that hold nothing of the backbone, whose modules are
    ``inside``."""
    if id(module) in inside:
        return []
    if not any(id(inner) in inside for inner in module.modules()):
        return [module]
    return [one for child in module.children() for one in _outside(child, inside)]


def _unseen(modules: Sequence[nn.Module], seen: set[int]) -> list[nn.Module]:
    """The modules whose weights are in no layer yet, and those weights of the others; ``seen``
    grows by them."""
    found: list[nn.Module] = []
    for module in modules:
        own = list(module.parameters())
        new = [p for p in own if id(p) not in seen]
        if len(new) == len(own) and (own or isinstance(module, nn.Dropout)):
            found.append(module)
        elif new:
            found.append(nn.ParameterList(new))
        seen.update(map(id, new))
    return found


def freeze(network: Network, what: int | float | str | None) -> Decision | None:
    """Freeze the first layers, or the layers that a pattern names. All others are trained.

    Parameters
    ----------
    what : ``None``: nothing (returns ``None``). A whole number n: the first n layers, the
        embeddings being the first. A fraction in (0, 1): that share of the layers before the
        head, rounded down. A text: a number as above, ``"backbone"`` (all but pooler and head),
        or comma-separated shell patterns of layer or parameter names, e.g. ``"embeddings"``,
        ``"block.[0-2]"``, ``"*.LayerNorm.*"``.

    Raises
    ------
    RecipeError : it names nothing, or nothing would be left to train.
    """
    adapter = network.adapter
    never_learn = (adapter.frozen_ids if adapter else frozenset()) | network.fixed
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) not in never_learn)
    if what is None:
        return None
    number = _parse_number(what)
    select = _matching if isinstance(number, str) else _first_layers
    for parameter in select(network, number):
        parameter.requires_grad_(False)
    total, trainable = count_parameters(network)
    must_learn = (network.head if network.new_head else network).parameters()
    if not any(parameter.requires_grad for parameter in must_learn):
        raise _freeze_error(network, "leaves nothing to train, or freezes a new head", what)
    because = f"{SETTING}={what}: {trainable:,} of {total:,} parameters are trained"
    return Decision("frozen layers", str(what), because)


def _parse_number(what: int | float | str) -> int | float | str:
    # ``--set`` hands words on: "3" is three layers, "0.5" a share.
    for number_type in (int, float):
        try:
            return number_type(what) if isinstance(what, str) else what
        except ValueError:
            continue
    return what


def _first_layers(network: Network, what: Any) -> list[nn.Parameter]:
    below = [layer for layer in network.layers() if layer.name != "head"]
    share = isinstance(what, float) and 0 < what < 1
    if not share and what not in range(len(below) + 1):
        rule = f"must be a number up to {len(below)}, a share between 0 and 1, or names"
        raise _freeze_error(network, rule, what)
    # Rounded down: a share never freezes more than was asked for.
    count = int(what * len(below)) if share else int(what)
    return [parameter for layer in below[:count] for parameter in layer.parameters()]


def _matching(network: Network, text: Any) -> list[nn.Parameter]:
    parameters: list[nn.Parameter] = []
    for pattern in (part.strip() for part in text.split(",")):
        if pattern == BACKBONE:
            matched = list(network.backbone.parameters())
        else:
            layers = [one for one in network.layers() if fnmatch.fnmatchcase(one.name, pattern)]
            matched = [p for layer in layers for p in layer.parameters()]
            names = network.named_parameters()
            matched += [p for name, p in names if fnmatch.fnmatchcase(name, pattern)]
        if not matched:
            raise _freeze_error(network, "matches no layer and no parameter", pattern)
        parameters += matched
    return parameters


def _freeze_error(network: Network, rule: str, what: object) -> RecipeError:
    names = ", ".join(layer.name for layer in network.layers())
    return RecipeError(SETTING, rule, what, f"Layers: {names}.")


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
    adapter, layers = network.adapter, network.layers()
    fast, ratio = (
        (adapter.fast_ids, adapter.spec.rate_ratio or 1.0) if adapter else (frozenset(), 1.0)
    )
    last = sum(layer.name not in ("pooler", "head") for layer in layers)
    for index, layer in enumerate(layers):
        depth = max(0, last - index)
        rate = learning_rate * layer_decay**depth
        if layer.name == "head" and head_learning_rate is not None:
            rate = head_learning_rate
        trainable = [p for p in layer.parameters() if p.requires_grad]
        for suffix, is_fast, decayed in PARAMETER_GROUPS:
            members = [p for p in trainable if (id(p) in fast, p.ndim > 1) == (is_fast, decayed)]
            if members:
                groups.append(
                    {
                        "params": members,
                        "lr": rate * ratio if is_fast else rate,
                        "weight_decay": weight_decay if decayed else 0.0,
                        "name": f"{layer.name}{suffix}",
                        "depth": depth,
                    }
                )
    return groups


def new_head(features: int, outputs: int, seed: int, bias: bool = True) -> nn.Linear:
    """The new linear layer [outputs, features] that replaces a classifier's pretrained one: weights
    normal with standard deviation 0.02, bias zero or none."""
    # skip_init leaves the global generator as it is: a run's other draws do not depend on the
    # number of classes.
    make: Any = nn.utils.skip_init
    head: nn.Linear = make(nn.Linear, features, outputs, bias=bias)
    generator = torch.Generator().manual_seed(derive_seed(seed, "head"))
    weights = torch.randn(head.weight.shape, generator=generator) * HEAD_STD
    with torch.no_grad():
        head.weight.copy_(weights)
        if bias:
            head.bias.zero_()
    return head


def restore_initial_head(
    network: Network,
    learning: Mapping[str, nn.Parameter],
    start: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer | None,
) -> bool:
    """Reset the parameters of ``network.head`` that are ``learning`` (by name) to their values in
    ``start``, and clear their state in ``optimizer``, moments and counts. Returns whether there
    were any."""
    head = {id(parameter) for parameter in network.head.parameters()}
    head_parameters = {name: p for name, p in learning.items() if id(p) in head}
    with torch.no_grad():
        for name, parameter in head_parameters.items():
            parameter.copy_(start[name])
            if optimizer is not None:
                optimizer.state.pop(parameter, None)
    return bool(head_parameters)


def top_layers(network: Network, blocks: int) -> list[Layer]:
    """The last ``blocks`` blocks of a network and its pooler, if it has one; the lowest first.

    Raises ``RecipeError`` if there are not enough blocks, or none would be left below.
    """
    layers = network.layers()
    stack = [layer for layer in layers if layer.name not in ("embeddings", "pooler", "head")]
    if blocks >= len(stack):
        raise RecipeError(
            "methods.reinit.blocks",
            f"must be below {len(stack)}, the blocks of this model: with all of them drawn anew "
            "nothing pretrained would be left but the embeddings",
            blocks,
            "Choose fewer; 1 to 3 helped (2006.05987).",
        )
    top = stack[len(stack) - blocks :]
    return [*top, *(layer for layer in layers if layer.name == "pooler")]


def reinitialize(network: Network, layers: Sequence[Layer], seed: int) -> None:
    """Initialise the weights of ``layers`` in place, as their architecture does before pretraining
    (``initializer_range`` of its configuration): the same for a seed on the same kind of device.
    The global generators are unchanged.

    Raises ``ModelError`` if the architecture's initializer does not know one of their matrices.
    """
    # The Transformers model whose weights these are knows how they are drawn.
    owner: Any = next((m for m in network.modules() if hasattr(m, "_init_weights")), None)
    remedy = "Remove methods.reinit for this model."
    if owner is None:
        rule = "has an architecture without its own initialisation of weights"
        raise ModelError(type(network).__name__, rule, None, remedy)
    names = {id(p): name for name, p in network.named_parameters()}
    devices = {p.device for layer in layers for p in layer.parameters() if p.is_cuda}
    with torch.random.fork_rng(devices=sorted(devices, key=str)), torch.no_grad():
        torch.manual_seed(derive_seed(seed, "redraw"))
        for layer in layers:
            before = {p: p.detach().clone() for p in layer.parameters() if p.ndim > 1}
            for part in (part for module in layer.modules for part in module.modules()):
                for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                    if hasattr(tensor, LOADED_MARK):
                        delattr(tensor, LOADED_MARK)
                owner._init_weights(part)
            unchanged = [names[id(p)] for p, known in before.items() if torch.equal(known, p)]
            if unchanged:
                rule = "has no initialisation for these weights"
                raise ModelError(owner.__class__.__name__, rule, unchanged[0], remedy)
