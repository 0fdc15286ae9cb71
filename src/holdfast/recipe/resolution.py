"""A recipe in which nothing is open: what a run stores, and all that a fit reads of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import ValidationError

from holdfast.core.errors import Defect
from holdfast.recipe.parts import ModelPart, Task, TrainPart
from holdfast.recipe.recipe import Recipe


class ResolvedModel(ModelPart):
    """``model`` with how much of it learns."""

    freeze: int | float | str


class ResolvedTrain(TrainPart):
    """``train`` with every setting that has a default for each kind of model and every one that
    the machine decides. What is ``None`` here is off: no bound on steps or minutes, no patience."""

    epochs: float
    batch_size: int
    learning_rate: float
    optimizer: str
    schedule: str
    warmup: float
    weight_decay: float
    label_smoothing: float
    layer_decay: float
    clip: float
    precision: Literal["float32", "bfloat16", "float16"]
    matmul: Literal["default", "onednn"]
    threads: int
    metric: str
    keep: Literal["newest_unless_worse", "lowest", "last"]


class ResolvedRecipe(Recipe):
    """A recipe that leaves nothing to be worked out.

    It is read wherever a ``Recipe`` is, and the other way round is a type error: what is built of
    a recipe whose defaults are not chosen yet would be built of ``None``.
    """

    task: Task
    model: ResolvedModel
    train: ResolvedTrain


def resolve_recipe(recipe: Recipe, **parts: Mapping[str, object]) -> ResolvedRecipe:
    """``recipe`` with some keys of some parts replaced, and nothing open. Raises ``Defect`` where
    something is."""
    plain = recipe.model_dump()
    for part, values in parts.items():
        plain[part] = {**plain[part], **values}
    try:
        return ResolvedRecipe.model_validate(plain)
    except ValidationError as error:
        fault = error.errors()[0]
        raise Defect("a resolved recipe", f"has an open setting: {fault['loc']}") from error
