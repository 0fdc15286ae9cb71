"""A bench of few marked rows and a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.fits.row_use import learning_rows
from holdfast.prepare.rows import load_and_divide
from holdfast.recipe import Recipe, override
from holdfast.search.context import SearchContext

ROWS = 60


@pytest.fixture(scope="session")
def search_recipe(
    tmp_path_factory: pytest.TempPathFactory, marked_rows: Any, write_csv: Any, quick: list[str]
) -> Recipe:
    path: Path = write_csv(tmp_path_factory.mktemp("search") / "rows.csv", marked_rows(ROWS))
    return override(Recipe(), [f"data.path={path}", *quick, "train.evaluations=3"])


@pytest.fixture(scope="session")
def bench(search_recipe: Recipe) -> SearchContext:
    divided = load_and_divide(search_recipe)
    return SearchContext.from_learning_rows(learning_rows(divided.recipe, divided))
