"""What differs between tasks: how rows are read, encoded, trained on, scored, predicted and
saved.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from holdfast.core.discovery import suggest_name
from holdfast.core.errors import Defect, RecipeError
from holdfast.core.tasks import TASKS

if TYPE_CHECKING:
    from holdfast.contract.fit import TaskDefinition
    from holdfast.models.base import LoadedModel
    from holdfast.training.task import Examples


def task_definition(task: str | None) -> TaskDefinition[LoadedModel, Examples]:
    """Return the definition of the recipe's task and import its libraries."""
    if task is None:
        raise Defect("a recipe's task", "was used before Holdfast had worked it out")
    if task not in TASKS:
        raise RecipeError("task", "is not known", task, suggest_name(task, list(TASKS)))
    module = importlib.import_module(f"{__name__}.{TASKS[task].folder}.task")
    definition: TaskDefinition[LoadedModel, Examples] = module.DEFINITION
    return definition
