"""One file per task: how its reader, model, rows, scores and predictions are put together."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, get_args

from holdfast.core.discovery import nearest
from holdfast.core.errors import Defect, RecipeError
from holdfast.recipe.parts import Task

if TYPE_CHECKING:
    from holdfast.pipeline.ready import Kind


def kind_of(task: str | None) -> Kind:
    """The kind that a recipe's ``task`` names, in the file of that name; its libraries are imported
    now."""
    if task is None:
        raise Defect("a recipe's task", "was not worked out before it was asked for")
    known = get_args(Task)
    if task not in known:
        raise RecipeError("task", "is not known", task, nearest(task, list(known)))
    kind: Kind = importlib.import_module(f"{__name__}.{task.replace('-', '_')}").KIND
    return kind
