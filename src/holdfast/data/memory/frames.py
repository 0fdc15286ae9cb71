"""Data that a Python program already holds: data frames, data sets, lists of records → Arrow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from holdfast.core.errors import DataError
from holdfast.core.files import disk_errors
from holdfast.core.input_errors import door
from holdfast.data.memory.objects import array_of, check_depth, kept_or_spelled, spelled
from holdfast.data.raw import refuse_repeated
from holdfast.data.scratch import scratch_file

if TYPE_CHECKING:
    import datasets
    import pandas
    import polars

LEAVE = "Leave the column out, or write plain values into it."


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
    """Whether ``value`` is a ``datasets.Dataset``, or one that is read as it is asked for (told
    without importing the library). A ``DatasetDict`` is a dictionary of several."""
    several = isinstance(value, Mapping)
    return _library(value) == "datasets" and hasattr(value, "column_names") and not several


def frame_table(frame: object, what: str = "the data frame") -> pa.Table:
    """The rows as an Arrow table, in their order, without an index.

    A column that mixes kinds of values, or holds what no Parquet file can, is written as texts;
    the class numbers of a ``datasets`` feature become their names. A name that is no text becomes
    one.

    Raises ``DataError`` where there is more than one table, a name stands twice, or a column holds
    what cannot be written at all.
    """
    if isinstance(frame, Mapping) and is_frame(frame):
        cells = {name: series_values(values) for name, values in frame.items()}
        return _table(what, [(name, partial(array_of, values)) for name, values in cells.items()])
    if isinstance(frame, Mapping):
        raise DataError(
            what,
            "is several tables, not one",
            sorted(map(str, frame)),
            "Give one of them, e.g. dataset['train'].",
        )
    if isinstance(frame, (list, tuple)):
        return _of_records(frame, what)
    if is_dataset(frame):
        return _of_arrow(_of_dataset(frame, what), what)
    if isinstance(frame, pa.RecordBatch):
        return _of_arrow(pa.Table.from_batches([frame]), what)
    if isinstance(frame, pa.Table):
        return _of_arrow(frame, what)
    # A lazy frame has no rows yet.
    eager: Any = frame.collect() if hasattr(frame, "collect") else frame
    if _library(eager) == "polars":
        return _of_arrow(_of_polars(eager, what), what)
    columns = [partial(_of_series, eager.iloc[:, place]) for place in range(len(eager.columns))]
    return _table(what, list(zip(eager.columns, columns, strict=True)))


def write_frame(table: pa.Table, path: Path) -> None:
    """The table as Parquet."""
    import pyarrow.parquet as parquet

    with disk_errors(path):
        parquet.write_table(table, path)


def frame_file(frame: object, what: str = "the data frame") -> Path:
    """The rows in a Parquet file of this process's temporary folder."""
    path = scratch_file("frame", ".parquet")
    write_frame(frame_table(frame, what), path)
    return path


def series_values(values: Any) -> list[Any]:
    """The values of a list, an array or a series, missing ones of pandas as ``None``."""
    if _library(values) == "pandas":
        return [
            None if missing else value
            for value, missing in zip(values.tolist(), values.isna(), strict=True)
        ]
    # NumPy and pandas say ``tolist``, Polars ``to_list``.
    found = values.tolist() if hasattr(values, "tolist") else values
    found = found.to_list() if hasattr(found, "to_list") else found
    if isinstance(found, Mapping):
        # Its names would be taken for the values.
        raise DataError(
            "the values",
            "are a dictionary, not one of columns",
            sorted(map(str, found))[:5],
            "Give a list of such rows, [{…}], or of one column each, {'text': […]}.",
        )
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise DataError(
            "the values", "are no list, array or column", type(values).__name__, "Give one a row."
        )
    return list(found)


def _is_column(value: object) -> bool:
    """Whether ``value`` holds the cells of one column."""
    plain = isinstance(value, (list, tuple)) or type(value).__name__ in ("ndarray", "Series")
    return plain and not is_frame(value)


def _library(value: object) -> str:
    return type(value).__module__.partition(".")[0]


def _table(what: str, columns: Sequence[tuple[object, Callable[[], pa.Array]]]) -> pa.Table:
    """The columns by their names as texts; each name once, each length the same."""
    names = [str(name) for name, _ in columns]
    refuse_repeated(what, names, "Give each a name of its own.")
    made: dict[str, pa.Array] = {}
    for name, (_, make) in zip(names, columns, strict=True):
        with door(f"{what}, column {name!r}", DataError, "cannot be read", LEAVE):
            name.encode("utf-8")
            made[name] = make()
    if len({len(values) for values in made.values()}) > 1:
        lengths = {name: len(values) for name, values in made.items()}
        raise DataError(what, "has columns of different lengths", lengths, "Give one cell a row.")
    return pa.table(made)


def _of_arrow(table: pa.Table, what: str) -> pa.Table:
    columns = zip(table.column_names, table.columns, strict=True)
    return _table(what, [(name, partial(kept_or_spelled, column)) for name, column in columns])


def _of_polars(frame: polars.DataFrame, what: str) -> pa.Table:
    with door(what, DataError, "cannot be read", LEAVE):
        table: pa.Table = frame.to_arrow()
        return table


def _of_series(series: pandas.Series) -> pa.Array:
    # Only objects can be lists in lists.
    cells = series_values(series) if series.dtype == object else ()
    check_depth(cells)
    try:
        found = pa.Array.from_pandas(series)
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        return spelled(series_values(series))
    if isinstance(found.type, pa.BaseExtensionType):
        # Periods and intervals: Arrow has numbers for them, the reader knows them by their text.
        return spelled(series_values(series))
    return kept_or_spelled(found)


def _of_dataset(rows: datasets.Dataset, what: str) -> pa.Table:
    from holdfast.data.readers.hub import with_class_names

    if not hasattr(rows, "__len__"):
        raise DataError(
            what,
            "is read as it is asked for, so its rows cannot be divided",
            type(rows).__name__,
            "Give them all: datasets.Dataset.from_list(list(rows)).",
        )
    return with_class_names(rows, rows.with_format("arrow")[:])


def _of_records(records: Sequence[Mapping[object, object]], what: str) -> pa.Table:
    names = list(dict.fromkeys(name for record in records for name in record))
    return _table(
        what,
        [(name, partial(array_of, [record.get(name) for record in records])) for name in names],
    )
