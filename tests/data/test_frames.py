"""Rows of other libraries as Arrow."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from holdfast.core.errors import DataError
from holdfast.data.memory.frames import frame_table, is_frame, series_values
from holdfast.data.memory.texts import rows_in_memory, unlabelled_rows

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
datasets = pytest.importorskip("datasets")

ROWS = {"text": ["a b", None, "c"], "n": [1, 2, 3], "label": ["x", "y", "x"]}


@pytest.mark.parametrize(
    "make",
    [
        lambda: pd.DataFrame(ROWS, index=[7, 7, 9]),
        lambda: pl.DataFrame(ROWS),
        lambda: pl.LazyFrame(ROWS),
        lambda: pa.table(ROWS),
        lambda: datasets.Dataset.from_dict(ROWS),
        lambda: [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)],
        lambda: dict(ROWS),
        lambda: pd.DataFrame(ROWS).astype({"label": "category"}),
    ],
)
def test_every_kind_of_table_is_the_same_rows(make: Any) -> None:
    frame = make()
    assert is_frame(frame)
    found = frame_table(frame)
    assert found.column_names == ["text", "n", "label"]
    assert found.to_pydict() == ROWS


def test_a_column_of_mixed_values_is_written_as_texts() -> None:
    mixed = ["a", 1, 2.0, True, None]
    for frame in (pd.DataFrame({"x": mixed}, dtype=object), [{"x": value} for value in mixed]):
        assert frame_table(frame)["x"].to_pylist() == ["a", "1", "2", "true", None]


def test_class_numbers_of_a_data_set_become_names() -> None:
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]})
    rows = rows.cast_column("label", datasets.ClassLabel(names=["no", "yes"]))
    assert frame_table(rows)["label"].to_pylist() == ["yes", "no"]


def test_lists_series_and_mappings_are_no_frames() -> None:
    for value in (["a"], ("a", "b"), pd.Series(["a"]), pl.Series(["a"]), {}, [], "a"):
        assert not is_frame(value)
    for values in (pd.Series(["a", float("nan")]), pl.Series(["a", None]), ["a", None]):
        assert series_values(values) == ["a", None]


@pytest.mark.parametrize(
    "column",
    [
        pd.DataFrame({"y": ["u", "v"]}, index=[3, 3]),
        pl.DataFrame({"y": ["u", "v"]}),
        pa.table({"y": ["u", "v"]}),
        datasets.Dataset.from_dict({"y": ["u", "v"]}),
        pa.chunked_array([["u"], ["v"]]),
        pa.array(["u", "v"]),
        pd.Index(["u", "v"]),
    ],
)
def test_a_column_of_any_kind_gives_texts_labels_and_groups(column: Any) -> None:
    expected = {"text": ["a", "b"], "label": ["u", "v"], "group": ["u", "v"]}
    given = rows_in_memory(["a", "b"], column, column)
    assert given is not None
    assert given.to_pydict() == expected
    assert series_values(column) == ["u", "v"]


def test_columns_of_arrow_are_texts() -> None:
    column = pa.chunked_array([["a"], [None]])
    assert unlabelled_rows(column).to_pydict() == {"text": ["a", None]}
    assert frame_table({"text": column, "n": [1, 2]}).to_pydict() == {
        "text": ["a", None],
        "n": [1, 2],
    }


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table, pd.MultiIndex.from_product])
def test_several_columns_are_no_labels(make: Any) -> None:
    two = [["u", "v"], ["w"]] if "from_product" in str(make) else {"y": ["u", "v"], "z": [1, 2]}
    with pytest.raises(DataError, match=r"(?s)the labels: .*one column.*\n  Give"):
        rows_in_memory(["a", "b"], make(two), None)


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(DataError, match="several tables"):
        frame_table({"train": pa.table(ROWS)})
    with pytest.raises(DataError, match="different lengths"):
        frame_table({"text": ["a", "b"], "label": ["x"]})
    twice = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(DataError, match="same name"):
        frame_table(twice)
