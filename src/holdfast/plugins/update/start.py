"""The start of an update: train from the base model, or on request from the served model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from holdfast.contract.run_folder import MODEL
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision
from holdfast.models.loading.adapter_folder import is_adapter_folder
from holdfast.recipe import Recipe
from holdfast.report.view.update import STARTS
from holdfast.runs.finished_run import FinishedRun

Start = Literal["anew", "warm"]


@dataclass(frozen=True, slots=True)
class StartChoice:
    """The start and its reason."""

    start: Start
    because: str

    @property
    def decision(self) -> Decision:
        return Decision("start", STARTS[self.start], self.because, prominent=True)


def warm_start_obstacle(run: Path, recipe: Recipe, deleted: int) -> str | None:
    """Why training cannot start from the served model; ``None`` where it can."""
    if FinishedRun(run).out_of_fold:
        return "the served model also learned from the validation rows"
    if deleted:
        return f"the served model was trained on {deleted} rows that were deleted since"
    if is_adapter_folder(run / MODEL):
        return "the served model is an adapter on another model"
    if recipe.model.quantize != "none":
        return "the served model is quantized"
    if recipe.model.static:
        return "the served model is a static model, which is made from an encoder"
    return None


def recipe_for_start(start: Start, recipe: Recipe, run: Path) -> Recipe:
    """The recipe that trains from this start."""
    if start == "anew":
        return recipe
    named = {"name": str((run / MODEL).resolve()), "revision": None, "layers": None}
    return recipe.with_changes(model=named)


def choose_start(requested: str, obstacle: str | None) -> StartChoice:
    """The served model only where it is requested, and nothing stands against it: in
    benchmarks/update_starts.py it was not shown to be the better start.

    Raises ``RecipeError`` for an unknown start, or one that is not possible.
    """
    if requested not in get_args(Start):
        rule = f"must be one of {', '.join(get_args(Start))}"
        raise RecipeError("--start", rule, requested, "Leave it out for the base model.")
    if requested == "warm":
        if obstacle:
            raise RecipeError("--start", f"cannot be warm: {obstacle}", requested, "Leave it out.")
        return StartChoice("warm", "requested")
    because = "the base model keeps nothing of rows that are deleted later, and is as good a start"
    return StartChoice("anew", obstacle or because)
