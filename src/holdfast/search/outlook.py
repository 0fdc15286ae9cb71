"""What a search sets out to do, for ``--dry-run``: nothing is trained or written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from holdfast.core.errors import RecipeError
from holdfast.pipeline.main import absolute
from holdfast.prepare.rows import load_and_divide
from holdfast.recipe import Recipe
from holdfast.runs.procedure import Procedure


@runtime_checkable
class Foreseeable(Protocol):
    """A learner that can say what it would try."""

    def foreseen(self) -> Mapping[str, Any]:
        """In plain values, on the rows that it was made for."""
        ...


def foreseen(procedure: Procedure, recipe: Recipe) -> dict[str, Any]:
    """The division, and what is tried on it."""
    divided = load_and_divide(procedure.asked(recipe))
    learner = procedure.learn(absolute(divided.recipe, divided.table), divided)
    if not isinstance(learner, Foreseeable):
        raise RecipeError("--dry-run", "is not known to this search", None, "Leave it out.")
    sides = ("train", "valid", "test")
    return {
        "schema": 1,
        "rows": divided.table.source_rows,
        "division": {name: len(getattr(divided.splits, name)) for name in sides},
        **learner.foreseen(),
    }
