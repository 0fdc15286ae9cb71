"""The bounds of what a source may ask for."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from holdfast.core.errors import DataError
from holdfast.data.cells import read_json_cell, write_json_cell
from holdfast.data.limits import (
    DEPTH,
    UNPACKED_FREELY,
    Limits,
    check_columns,
    check_row,
    check_unpacked,
    current_limits,
    use_limits,
)
from holdfast.recipe.parts import LimitsPart


def test_the_recipe_s_limits_are_those_of_the_readers() -> None:
    assert LimitsPart().model_dump() == asdict(Limits())


def test_limits_hold_where_they_are_set_and_no_longer() -> None:
    check_row("rows.csv", 10)
    with use_limits(Limits(cell_mb=5e-6)):
        with pytest.raises(DataError, match=r"data\.limits\.cell_mb"):
            check_row("rows.csv", 10)
        check_row("rows.csv", 5)
    assert current_limits() == Limits()


def test_what_is_small_may_unpack_to_anything_allowed() -> None:
    check_unpacked("rows.gz", 1, UNPACKED_FREELY)
    check_unpacked("rows.gz", UNPACKED_FREELY, 100 * UNPACKED_FREELY)
    with pytest.raises(DataError, match="100 times"):
        check_unpacked("rows.gz", 1, UNPACKED_FREELY + 1)
    with pytest.raises(DataError, match="100 times"):
        check_unpacked("rows.gz", UNPACKED_FREELY, 100 * UNPACKED_FREELY + 1)


def test_columns_are_counted_and_their_names_measured() -> None:
    check_columns("rows.csv", ["a"] * 2_000)
    with pytest.raises(DataError, match="2,000 columns"):
        check_columns("rows.csv", ["a"] * 2_001)
    with pytest.raises(DataError, match="column 2"):
        check_columns("rows.csv", ["a", "b" * 1_001])


def test_cells_are_written_as_json_that_any_reader_takes() -> None:
    assert write_json_cell([1.5, {"a": "é"}]) == '[1.5, {"a": "\\u00e9"}]'
    assert write_json_cell({"a": [float("inf"), float("nan")]}) == '{"a": ["inf", null]}'
    level: list[object] = []
    for _ in range(DEPTH - 1):
        level = [level]
    assert read_json_cell(write_json_cell(level)) == level
    for _ in range(2_000):
        with pytest.raises(ValueError, match="levels deep"):
            write_json_cell([level])
        level = [level]
    with pytest.raises(ValueError, match="deep"):
        read_json_cell("[" * 100_000)
