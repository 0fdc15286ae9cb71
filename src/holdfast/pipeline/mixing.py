"""``data.mix``: several sources become the rows of one run, each divided and scored by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from holdfast.core.errors import RecipeError
from holdfast.data.mix import SOURCE, Mixed, Part, mix
from holdfast.pipeline.rows import Notify, notify_all
from holdfast.recipe import Recipe

TASK = "text-classification"


def with_mix(
    recipe: Recipe, held: Mapping[str, Any], notify: Notify = lambda _: None
) -> tuple[Recipe, Mapping[str, Any]]:
    """The recipe of one table, and the table among the rows in memory, where sources are mixed."""
    if not recipe.data.mix:
        return recipe, held
    if recipe.data.path is not None or "data" in held:
        rule = "and data.path both say where the rows are"
        raise RecipeError("data.mix", rule, recipe.data.path, "Leave one of them out.")
    if recipe.task not in (None, TASK):
        rule = f"does not exist for {recipe.task}: texts with a class each are mixed"
        raise RecipeError("data.mix", rule, None, "Join the files yourself.")
    for key in ("text", "label", "source", "group", "template", "config"):
        if getattr(recipe.data, key) is not None:
            rule = "is of one table, and data.mix names several"
            remedy = "Give each source its own: data.mix: [{path: …, text: …, label: …}]."
            raise RecipeError(f"data.{key}", rule, getattr(recipe.data, key), remedy)
    found = mix(
        [
            Part(
                one.path,
                one.name,
                one.config,
                recipe.data.encoding,
                one.text,
                one.label,
                one.labels or {},
            )
            for one in recipe.data.mix
        ]
    )
    notify_all(notify, found.decisions, found.findings)
    one = recipe.changed(data=_of_one_table(recipe, found)).model_copy(update={"task": TASK})
    return one, {**held, "data": found.rows}


def _of_one_table(recipe: Recipe, found: Mixed) -> dict[str, Any]:
    given = {
        name: one.weight
        for name, one in zip(found.names, recipe.data.mix or (), strict=True)
        if one.weight is not None
    }
    return {
        "mix": None,
        "encoding": None,
        "text": found.text,
        "label": "label",
        "source": SOURCE,
        "weights": given or recipe.data.weights,
    }


@contextmanager
def mixed_file(recipe: Recipe, notify: Notify = lambda _: None) -> Iterator[Recipe]:
    """The same for a run that writes nothing: the table lies in a file that goes again."""
    from holdfast.data.frames import frame_file

    recipe, held = with_mix(recipe, {}, notify)
    if not held:
        yield recipe
        return
    path = frame_file(held["data"])
    try:
        yield recipe.changed(data={"path": str(path)})
    finally:
        path.unlink(missing_ok=True)
