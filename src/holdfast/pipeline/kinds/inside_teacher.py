"""The blocks of an encoder and of its teacher, side by side: for ``distill.hidden`` and
``distill.attention``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.core.errors import RecipeError
from holdfast.core.updates import Passed
from holdfast.methods.inside import Heard, Inside
from holdfast.models.adapter_save import is_adapter_folder
from holdfast.models.depth import chosen_blocks
from holdfast.models.network import EncoderClassifier
from holdfast.pipeline.folder import MODEL, RECIPE
from holdfast.pipeline.ready import Prepared
from holdfast.recipe import Recipe, read_recipe

TASKS = ("text-classification", "token-classification")
# The value's place in a block, and what queries and keys are called beside it.
BESIDE = {"value": ("query", "key"), "v_lin": ("q_lin", "k_lin")}
BESIDE["value_proj"] = ("query_proj", "key_proj")
NOT_READ = ("labels", "where", "tags", "counts")


def inside_teacher(run: Path, prepared: Prepared, differs: str | None) -> EncoderClassifier | None:
    """The network of the run with its blocks, where the recipe asks for what they say.

    Raises ``RecipeError`` where they cannot be compared with the student's.
    """
    recipe = prepared.recipe
    asked = {"hidden": recipe.distill.hidden, "attention": recipe.distill.attention}
    keys = [f"distill.{name}" for name, weight in asked.items() if weight]
    if not keys:
        return None
    why = differs
    if recipe.task not in TASKS:
        why = f"the blocks of {recipe.task} are not compared"
    elif is_adapter_folder(run / MODEL):
        why = f"{run} is an adapter beside the model that it was made for"
    elif recipe.model.freeze not in (None, "words", "none"):
        why = "model.freeze keeps blocks from being computed"
    if why:
        raise RecipeError(keys[0], f"is not possible: {why}", None, "Leave it out.")
    whole = read_recipe(run / RECIPE)
    bare = whole.model.model_copy(update={"name": str(run / MODEL), "layers": None})
    loaded: Any = prepared.kind.load(whole.model_copy(update={"model": bare}), prepared.rows)
    network = loaded.network.eval()
    if recipe.distill.attention:
        _values(network)
        _values(prepared.loaded.network)
    assert isinstance(network, EncoderClassifier)
    return network


def inside_of(recipe: Recipe, teacher: EncoderClassifier, student: Any) -> Inside:
    """The further losses of a fit whose network is ``student``."""
    above, below = _blocks(teacher), _blocks(student)
    wanted, spread = recipe.distill, recipe.model.layers_kept
    pairs = _pairs(len(above), len(below), recipe.model.layers is not None, spread)
    heads = math.gcd(*(int(n.config.num_attention_heads) for n in (teacher, student)))
    named: list[dict[str, Any]] = []
    for network, blocks in ((teacher, above), (student, below)):
        own = {f"block {i}": block for i, block in enumerate(blocks)}
        named.append({**own, **(_values(network) if wanted.attention else {})})

    def ask(passed: Passed) -> None:
        inputs = {k: v for k, v in passed.batch.items() if k not in NOT_READ}
        teacher.to(inputs["input_ids"].device).hidden(**inputs)

    return Inside(
        ask,
        Heard(named[0], always=True),
        Heard(named[1]),
        wanted.hidden,
        wanted.attention,
        [(f"block {a}", f"block {b}") for a, b in pairs],
        ("query", "key", "value") if wanted.attention else (),
        heads,
    )


def _pairs(above: int, below: int, cut: bool, kept: Any) -> list[tuple[int, int]]:
    """Which of the teacher's blocks each of the student's is held to: of a part of the teacher the
    block that it was, else the one at the same share of the depth."""
    if cut and below <= above:
        return list(zip(chosen_blocks(above, below, kept), range(below), strict=True))
    return [(max(0, round((i + 1) * above / below) - 1), i) for i in range(below)]


def _blocks(network: EncoderClassifier) -> list[Any]:
    return [one.modules[0] for one in network.layers() if one.name.startswith("block.")]


def _values(network: Any) -> Mapping[str, Any]:
    """The queries, keys and values of the last block."""
    family, block = network.family, _blocks(network)[-1]
    place = family.block.value if family.block is not None else ""
    above, _, name = place.rpartition(".")
    if name not in BESIDE:
        rule = f"is not possible: a {family.name} has no queries, keys and values of its own"
        raise RecipeError("distill.attention", rule, None, "Leave it out.")
    query, key = BESIDE[name]
    found = {"query": query, "key": key, "value": name}
    return {what: block.get_submodule(f"{above}.{one}") for what, one in found.items()}
