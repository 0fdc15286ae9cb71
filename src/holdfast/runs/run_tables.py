"""The rows of a finished run's own sources, read again as the run read them."""

from __future__ import annotations

from holdfast.contract.inference import within_limits
from holdfast.data.table import Table
from holdfast.prepare.clean import same_text
from holdfast.prepare.rows import given_rows
from holdfast.recipe import Recipe
from holdfast.tasks import kind_of


def run_tables(recipe: Recipe) -> dict[str, Table]:
    """``source``, and ``valid`` and ``test`` where they came in files of their own; texts treated
    as the run treated them.

    Raises ``DataError`` where a source is gone or cannot be read.
    """
    data, kind = recipe.data, kind_of(recipe.task)
    with within_limits(data):
        main = kind.read(str(data.path), data, None)
        given, _ = given_rows(data, kind)
        tables = {"source": main, **{s: kind.read(path, data, main) for s, path in given.items()}}
    return {name: same_text(table, recipe) for name, table in tables.items()}
