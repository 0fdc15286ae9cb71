"""One file per task: how its reader, model, rows, scores and predictions are put together."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, get_args

from holdfast.core.discovery import nearest
from holdfast.core.errors import Defect, RecipeError
from holdfast.recipe.parts import Task

if TYPE_CHECKING:
    from holdfast.models.base import Loaded
    from holdfast.pipeline.ready import Kind
    from holdfast.tasks.base import Examples


def kind_of(task: str | None) -> Kind[Loaded, Examples]:
    """The kind that a recipe's ``task`` names, in the file of that name; its libraries are imported
    now."""
    if task is None:
        raise Defect("a recipe's task", "was not worked out before it was asked for")
    known = get_args(Task)
    if task not in known:
        raise RecipeError("task", "is not known", task, nearest(task, list(known)))
    module = importlib.import_module(f"{__name__}.{task.replace('-', '_')}")
    kind: Kind[Loaded, Examples] = module.KIND
    return kind
