"""Data that a Python program already holds: data frames, data sets, lists of records → Arrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from holdfast.core.errors import DataError
from holdfast.core.files import disk_errors
from holdfast.data.readers.values import spell
from holdfast.data.scratch import scratch_file


def is_frame(value: object) -> bool:
    """Whether ``value`` is a table with named columns: a data frame of pandas or Polars, a
    ``datasets.Dataset``, an Arrow table, a dictionary of columns, or a list of dictionaries. A
    series is none."""
    if isinstance(value, (pa.Table, pa.RecordBatch)) or is_dataset(value):
        return True
    if isinstance(value, Mapping):
        return bool(value) and all(map(_is_column, value.values()))
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(item, Mapping) for item in value)
    # Asked of the type: a lazy frame works its columns out, and warns.
    return hasattr(type(value), "columns") and _library(value) in ("pandas", "polars")


def is_dataset(value: object) -> bool:
    """Whether ``value`` is a ``datasets.Dataset`` (told without importing the library)."""
    return _library(value) == "datasets" and hasattr(value, "column_names")


def frame_table(frame: Any, what: str = "the data frame") -> pa.Table:
    """The rows as an Arrow table, in their order, without an index.

    A column of pandas that mixes kinds of values is written as texts; the class numbers of a
    ``datasets`` feature become their names.

    Raises ``DataError`` where there is more than one table, or a name stands twice.
    """
    if isinstance(frame, Mapping) and is_frame(frame):
        return _of_columns(frame, what)
    if isinstance(frame, Mapping):
        raise DataError(
            what, "is several tables, not one", sorted(map(str, frame)),
            "Give one of them, e.g. dataset['train'].",
        )  # fmt: skip
    if is_dataset(frame):
        return _of_dataset(frame)
    if isinstance(frame, (list, tuple)):
        return _of_records(frame)
    if isinstance(frame, pa.RecordBatch):
        frame = pa.Table.from_batches([frame])
    if isinstance(frame, pa.Table):
        names = list(frame.column_names)
    else:
        frame = frame.collect() if hasattr(frame, "collect") else frame
        names = [str(name) for name in frame.columns]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(
            what, "has columns of the same name", repeated, "Give each a name of its own."
        )
    if isinstance(frame, pa.Table):
        return frame
    if _library(frame) == "polars":
        table: pa.Table = frame.to_arrow()
        return table
    columns = [_column(frame.iloc[:, place]) for place in range(len(names))]
    return pa.table(dict(zip(names, columns, strict=True)))


def write_frame(table: pa.Table, path: Path) -> None:
    """The table as Parquet."""
    import pyarrow.parquet as parquet

    with disk_errors(path):
        parquet.write_table(table, path)


def frame_file(frame: Any, what: str = "the data frame") -> Path:
    """The rows in a Parquet file of this process's temporary folder."""
    path = scratch_file("frame", ".parquet")
    write_frame(frame_table(frame, what), path)
    return path


def series_values(values: Any) -> list[Any]:
    """The values of a list, an array or a series, missing ones of pandas as ``None``."""
    if _library(values) == "pandas":
        return [None if missing else value
                for value, missing in zip(values.tolist(), values.isna(), strict=True)]  # fmt: skip
    found = values.tolist() if hasattr(values, "tolist") else values
    return list(found.to_list() if hasattr(found, "to_list") else found)


def _is_column(value: object) -> bool:
    """Whether ``value`` holds the cells of one column."""
    plain = isinstance(value, (list, tuple)) or type(value).__name__ in ("ndarray", "Series")
    return plain and not is_frame(value)


def _library(value: object) -> str:
    return type(value).__module__.partition(".")[0]


def _column(series: Any) -> pa.Array:
    try:
        found = pa.Array.from_pandas(series)
    except (pa.ArrowException, OverflowError):
        found = pa.array(_spelled(series_values(series)), pa.string())
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _spelled(values: Sequence[Any]) -> Iterator[str | None]:
    return (spell(value.item() if hasattr(value, "item") else value) for value in values)


def _of_dataset(rows: Any) -> pa.Table:
    from holdfast.data.readers.hub import with_class_names

    return with_class_names(rows, rows.with_format("arrow")[:])


def _of_columns(columns: Mapping[str, Any], what: str) -> pa.Table:
    cells = {str(name): series_values(values) for name, values in columns.items()}
    if len({len(values) for values in cells.values()}) > 1:
        lengths = {name: len(values) for name, values in cells.items()}
        raise DataError(what, "has columns of different lengths", lengths, "Give one cell a row.")
    return pa.table({name: _array(values) for name, values in cells.items()})


def _array(values: Sequence[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array(_spelled(values), pa.string())


def _of_records(records: Sequence[Mapping[str, Any]]) -> pa.Table:
    names = list(dict.fromkeys(str(name) for record in records for name in record))
    return pa.table({name: _array([record.get(name) for record in records]) for name in names})
