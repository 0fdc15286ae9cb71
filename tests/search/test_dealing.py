"""Which rows a search may deal into folds by chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.errors import RecipeError
from holdfast.fits.row_use import dealing_conflict, learning_rows
from holdfast.prepare.rows import load_and_divide
from holdfast.recipe import Recipe
from holdfast.search.trial_plan import SearchPart, search_part
from holdfast.search.tune import Tune


@pytest.fixture
def placed(search_recipe: Recipe, tmp_path: Path, marked_rows: Any, write_csv: Any) -> Recipe:
    rows = [(*row, str(i), f"who{i // 4}") for i, row in enumerate(marked_rows(60))]
    path = write_csv(tmp_path / "rows.csv", rows, ("text", "label", "at", "who"))
    return search_recipe.with_changes(data={"path": str(path), "time": "at", "group": "who"})


@pytest.mark.parametrize("by", ["rows", "group", "time"])
def test_rows_by_time_are_never_dealt_by_chance(placed: Recipe, by: str) -> None:
    recipe = placed.with_changes(data={"split": {"by": by}})
    divided = load_and_divide(recipe)
    against = dealing_conflict(divided.recipe, divided)
    if by != "time":
        assert against is None
        return
    assert against is not None
    assert "time" in against
    with pytest.raises(RecipeError, match="split by time") as refused:
        Tune(search=SearchPart(folds=3)).learn(divided.recipe, divided)
    assert refused.value.what == "search.folds"


def test_given_validation_rows_stay_what_they_are(
    search_recipe: Recipe, tmp_path: Path, marked_rows: Any, write_csv: Any
) -> None:
    path = write_csv(tmp_path / "valid.csv", marked_rows(90)[60:])
    divided = load_and_divide(search_recipe.with_changes(data={"valid": str(path)}))
    assert "they were given separately" in str(dealing_conflict(divided.recipe, divided))


def test_a_bench_begins_without_what_a_teacher_said(search_recipe: Recipe) -> None:
    divided = load_and_divide(search_recipe)
    learning = learning_rows(divided.recipe, divided)
    said: Any = object()
    assert replace(learning, prepared=replace(learning.prepared, lessons=said)).bare.lessons is None


def test_a_setting_that_nothing_reads_is_refused() -> None:
    with pytest.raises(RecipeError, match="unknown key"):
        search_part({"portfolio": True}, {})
