"""A fully resolved recipe: what a run stores, and all that a fit reads of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import ValidationError

from holdfast.core.errors import Defect
from holdfast.recipe.parts import ControlPart, ModelPart, Task, TrainPart
from holdfast.recipe.recipe import Recipe


class ResolvedModel(ModelPart):
    """``model`` with ``freeze`` decided."""

    freeze: int | float | str


class ResolvedTrain(TrainPart):
    """``train`` with every default filled in: those of the kind of model and those of the machine.
    ``None`` means off here: no limit on steps or minutes, no patience."""

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


class ResolvedControl(ControlPart):
    """``control`` with its policy decided."""

    policy: str


class ResolvedRecipe(Recipe):
    """A recipe in which every default is filled in.

    It can be used wherever a ``Recipe`` can. The reverse is a type error, because code built from
    an unresolved recipe would read ``None``.
    """

    task: Task
    model: ResolvedModel
    train: ResolvedTrain
    control: ResolvedControl


def resolve_recipe(recipe: Recipe, **parts: Mapping[str, object]) -> ResolvedRecipe:
    """``recipe`` with some keys of some sections replaced, and every setting resolved. Raises
    ``Defect`` if a setting is still open."""
    plain = recipe.model_dump()
    for part, values in parts.items():
        plain[part] = {**plain[part], **values}
    try:
        return ResolvedRecipe.model_validate(plain)
    except ValidationError as error:
        fault = error.errors()[0]
        raise Defect("a resolved recipe", f"has an open setting: {fault['loc']}") from error
