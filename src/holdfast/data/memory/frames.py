"""Data frames, data sets and lists of records in memory as Arrow: typed where a column has one type
of value, else as texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from holdfast.core.errors import DataError
from holdfast.core.files import disk_errors
from holdfast.core.input_errors import reading_errors
from holdfast.data.cells import cell_text, too_deep_error, write_json_cell
from holdfast.data.limits import DEPTH
from holdfast.data.raw import refuse_repeated
from holdfast.data.scratch import scratch_file

if TYPE_CHECKING:
    import datasets
    import pandas

_INNER = (list, tuple, dict)


def to_arrow_array(values: Sequence[object]) -> pa.Array:
    """The values unchanged, where Arrow has one type for them all; else as texts.

    Passes on any exception that a value raises when it is converted to text.
    """
    check_depth(values)
    try:
        array = pa.array(values)
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        return text_array(values)
    return writable_array(array)


def writable_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column unchanged, if a Parquet file can store it; else as texts (an object without
    fields, intervals, and the like)."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    # Texts of more than two gigabytes stay in chunks.
    if isinstance(column, pa.ChunkedArray) or _is_plain(column.type):
        return column
    is_unwritable = isinstance(column.type, pa.BaseExtensionType) or not _writable(column)
    return text_array(_python_values(column)) if is_unwritable else column


def text_array(values: Sequence[object]) -> pa.Array:
    """Every value as the text that a source would write for it; lists and objects as JSON."""
    return pa.array([_text(value) for value in values], pa.string())


def check_depth(values: Sequence[object]) -> None:
    """Refuse lists nested too deeply: Arrow follows them until the process dies.

    Raises ``ValueError``.
    """
    level: Sequence[Any] = [v for v in values if isinstance(v, _INNER)]
    for _ in range(DEPTH):
        if not level:
            return
        # By identity: a list that occurs a million times is checked once per level.
        inner = {
            id(item): item
            for value in level
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, _INNER)
        }
        level = list(inner.values())
    raise too_deep_error()


def _is_plain(type_: pa.DataType) -> bool:
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return True
    return bool(pa.types.is_primitive(type_) and not pa.types.is_interval(type_))


def _writable(column: pa.Array) -> bool:
    import pyarrow.parquet as parquet

    try:
        # By trying: no list of types says what the installed version can write.
        parquet.write_table(pa.table({"x": column}), pa.BufferOutputStream())
    except (pa.ArrowException, OSError, ValueError, TypeError):
        return False
    return True


def _python_values(column: pa.Array) -> list[Any]:
    """The values of a column as Python objects; of a dictionary of unusual values, as shown."""
    try:
        return list(column.to_pylist())
    except (pa.ArrowException, ValueError, TypeError, KeyError):
        return [str(value) if value.is_valid else None for value in column]


def _text(value: object) -> str | None:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple, Mapping)):
        try:
            return write_json_cell(dict(value) if isinstance(value, Mapping) else value)
        except TypeError:
            return str(value)
    text = cell_text(value)
    if text is not None:
        text.encode("utf-8")
    return None if is_pandas_missing(value) else text


def is_pandas_missing(value: object) -> bool:
    """Whether it is ``pandas.NA`` or ``NaT``, without importing pandas."""
    return type(value).__name__ in ("NAType", "NaTType")


COLUMN_REMEDY = "Remove the column, or write plain values into it."


def is_frame(value: object) -> bool:
    """Whether ``value`` is a table with named columns: a data frame of pandas or Polars, a
    ``datasets.Dataset``, an Arrow table, a dictionary of columns, or a list of dictionaries, but
    not a series."""
    if isinstance(value, (pa.Table, pa.RecordBatch)) or is_dataset(value):
        return True
    if isinstance(value, Mapping):
        return bool(value) and all(map(_is_column, value.values()))
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(item, Mapping) for item in value)
    # Test the type: accessing the columns of a lazy frame computes them, with a warning.
    return hasattr(type(value), "columns") and library_of(value) in ("pandas", "polars")


def is_dataset(value: object) -> bool:
    """Whether ``value`` is a ``datasets.Dataset`` or ``IterableDataset`` (checked without importing
    the library). A ``DatasetDict`` is a dictionary of several."""
    several = isinstance(value, Mapping)
    return library_of(value) == "datasets" and hasattr(value, "column_names") and not several


def frame_table(frame: object, name: str = "the data frame") -> pa.Table:
    """The rows as an Arrow table, in their order, without an index.

    A column that mixes types of values, or that Parquet cannot store, is written as texts. The
    class numbers of a ``datasets`` feature become their names. A column name that is not a string
    becomes one.

    Raises ``DataError`` where there is more than one table, a name is repeated, or the values of a
    column cannot be written at all.
    """
    if isinstance(frame, Mapping) and is_frame(frame):
        cells = {name: series_values(values) for name, values in frame.items()}
        return _table(
            name, [(name, partial(to_arrow_array, values)) for name, values in cells.items()]
        )
    if isinstance(frame, Mapping):
        remedy = "Give one of them, for example dataset['train']."
        raise DataError(name, "is several tables, not one", sorted(map(str, frame)), remedy)
    if isinstance(frame, (list, tuple)):
        names = list(dict.fromkeys(name for record in frame for name in record))
        records = [(name, [record.get(name) for record in frame]) for name in names]
        return _table(name, [(name, partial(to_arrow_array, cells)) for name, cells in records])
    if is_dataset(frame):
        return _of_arrow(_of_dataset(frame, name), name)
    if isinstance(frame, pa.RecordBatch):
        return _of_arrow(pa.Table.from_batches([frame]), name)
    if isinstance(frame, pa.Table):
        return _of_arrow(frame, name)
    # A lazy frame has no rows yet.
    eager: Any = frame.collect() if hasattr(frame, "collect") else frame
    if library_of(eager) == "polars":
        with reading_errors(name, DataError, "cannot be read", COLUMN_REMEDY):
            table: pa.Table = eager.to_arrow()
        return _of_arrow(table, name)
    columns = [partial(_of_series, eager.iloc[:, place]) for place in range(len(eager.columns))]
    return _table(name, list(zip(eager.columns, columns, strict=True)))


def write_frame(table: pa.Table, path: Path) -> None:
    """Write the table as Parquet."""
    import pyarrow.parquet as parquet

    with disk_errors(path):
        parquet.write_table(table, path)


def frame_file(frame: object, name: str = "the data frame") -> Path:
    """The rows in a Parquet file in this process's temporary folder."""
    path = scratch_file("frame", ".parquet")
    write_frame(frame_table(frame, name), path)
    return path


def series_values(values: Any, name: str = "the values") -> list[Any]:
    """The values of a list, an array, a series or the only column of a data frame, with missing
    ones of pandas as ``None``."""
    if is_frame(values) and not isinstance(values, (Mapping, list, tuple)):
        return _only_column(frame_table(values, name), name)
    if type(values).__name__ == "MultiIndex":
        remedy = "Give one of its levels: index.get_level_values(0)."
        raise DataError(name, "is an index of several levels, not one column", None, remedy)
    if library_of(values) == "pandas":
        return [
            None if missing else value
            for value, missing in zip(values.tolist(), values.isna(), strict=True)
        ]
    # NumPy has ``tolist``, Polars ``to_list``, Arrow ``to_pylist``.
    items = values
    for method in ("tolist", "to_list", "to_pylist"):
        items = getattr(items, method)() if hasattr(items, method) else items
    if isinstance(items, Mapping):
        # Iterating over it would give its keys.
        raise DataError(
            name,
            "must be a list or columns, not another dictionary",
            sorted(map(str, items))[:5],
            "Give a list of rows, [{…}], or lists of cells by column, {'text': […]}.",
        )
    if isinstance(items, str) or not isinstance(items, Iterable):
        rule = "must be a list, an array or a column"
        raise DataError(name, rule, type(values).__name__, "Give one value per row.")
    return list(items)


def _only_column(table: pa.Table, name: str) -> list[Any]:
    if table.num_columns != 1:
        rule, remedy = "must be one column", "Give the column, for example frame['label']."
        raise DataError(name, rule, list(table.column_names), remedy)
    return list(table.column(0).to_pylist())


def _is_column(value: object) -> bool:
    """Whether ``value`` holds the cells of one column."""
    columns = (list, tuple, pa.Array, pa.ChunkedArray)
    plain = isinstance(value, columns) or type(value).__name__ in ("ndarray", "Series")
    return plain and not is_frame(value)


def library_of(value: object) -> str:
    """The package of a value's class, found without importing it."""
    return type(value).__module__.partition(".")[0]


def _table(source: str, columns: Sequence[tuple[object, Callable[[], pa.Array]]]) -> pa.Table:
    """The columns by their names as texts; no name repeated, all of the same length."""
    names = [str(name) for name, _ in columns]
    refuse_repeated(source, names, "Give each column a different name.")
    arrays: dict[str, pa.Array] = {}
    for name, (_, make) in zip(names, columns, strict=True):
        with reading_errors(
            f"{source}, column {name!r}", DataError, "cannot be read", COLUMN_REMEDY
        ):
            name.encode("utf-8")
            arrays[name] = make()
    if len({len(values) for values in arrays.values()}) > 1:
        lengths = {name: len(values) for name, values in arrays.items()}
        raise DataError(
            source, "has columns of different lengths", lengths, "Give one cell per row."
        )
    return pa.table(arrays)


def _of_arrow(table: pa.Table, name: str) -> pa.Table:
    columns = zip(table.column_names, table.columns, strict=True)
    return _table(name, [(name, partial(writable_array, column)) for name, column in columns])


def _of_series(series: pandas.Series) -> pa.Array:
    # Only object columns can hold nested lists.
    cells = series_values(series) if series.dtype == object else ()
    check_depth(cells)
    try:
        array = pa.Array.from_pandas(series)
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        return text_array(series_values(series))
    if isinstance(array.type, pa.BaseExtensionType):
        # Periods and intervals: Arrow stores numbers for them, the reader expects their text.
        return text_array(series_values(series))
    return writable_array(array)


def _of_dataset(rows: datasets.Dataset, name: str) -> pa.Table:
    from holdfast.data.readers.hub import with_class_names

    if not hasattr(rows, "__len__"):
        rule = "is a streaming data set, so its rows cannot be split"
        remedy = "Load all rows: datasets.Dataset.from_list(list(rows))."
        raise DataError(name, rule, type(rows).__name__, remedy)
    return with_class_names(rows, rows.with_format("arrow")[:])
