"""The files that a recipe names, checked before slow modules are imported and anything is read."""

from __future__ import annotations

from holdfast.core.errors import RecipeError
from holdfast.data.source import refuse_missing
from holdfast.data.texts.general import BUILT_IN
from holdfast.recipe import Recipe


def refuse_missing_sources(recipe: Recipe) -> None:
    """Raise ``RecipeError`` for a recipe without rows, and ``DataError`` for a file of it that does
    not exist."""
    data = recipe.data
    if data.path is None:
        raise RecipeError("data.path", "is missing", None, "Name the file that holds the rows.")
    other = (data.descriptions, data.unlabelled, data.general, recipe.probes.forgetting.data)
    for source in (data.path, data.valid, data.test, *other):
        if source is not None and source != BUILT_IN:
            refuse_missing(source)
