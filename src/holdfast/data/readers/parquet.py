"""Parquet, batch by batch. Numbers and booleans become the strings that a source would write.

A page can repeat one value of a dictionary a million times in a few bytes. The footer gives the
columns, the rows and the size of the pages. The size of the values after decoding is measured on
the dictionaries themselves, before a batch is held.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.errors import DataError
from holdfast.core.input_errors import first_line
from holdfast.data.cells import write_json_cell
from holdfast.data.limits import MB, check_row, check_rows, check_unpacked
from holdfast.data.raw import Batch, ColumnType, batch_rows, check_column_names, read_errors
from holdfast.data.readers import READERS, Reader
from holdfast.data.readers.text import unpack

if TYPE_CHECKING:
    import pyarrow.parquet as pq

# The most bytes of a batch after its repeated values are decoded.
BATCH_BYTES = 64 * MB
# Values with a greater ratio of decoded bytes to page bytes are repeated by a dictionary.
REPEAT_FACTOR = 4
# Lists of texts cannot be read as their dictionary; this few rows at a time are safe anyway.
FEW_ROWS = 256


def check_footer(path: Path, file: pq.ParquetFile) -> None:
    """Check what the footer shows: columns, rows, and the unpacked size."""
    names = [field.name for field in file.schema_arrow]
    check_column_names(str(path), names, "each column")
    if not names:
        raise DataError(
            str(path), "has no columns", None, "Add a column of texts and one of labels."
        )
    metadata, size = file.metadata, path.stat().st_size
    check_rows(str(path), size, metadata.num_rows)
    parts = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
    check_unpacked(str(path), size, sum(part.total_byte_size for part in parts))
    for part in parts:
        for at in range(part.num_columns):
            column = part.column(at)
            # The footer only gives the mean; the longest cell is measured below, or while it is
            # read.
            mean = column.total_uncompressed_size // max(1, part.num_rows)
            check_row(f"{path}, column {column.path_in_schema!r}", mean)


def rows_at_once(path: Path, plain: Path, file: pq.ParquetFile) -> int:
    """The rows of a batch: fewer where values repeat so much that the usual number would fill
    memory.

    ``plain`` is the path of the unpacked file. Raises ``DataError`` where a cell, or all of them
    together, exceed ``data.limits``.
    """
    usual = batch_rows(len(file.schema_arrow.names))
    risky = _repeating_columns(file)
    if not risky:
        return usual
    total, worst = 0, 0.0
    for batch in _dictionaries(plain, file, risky, usual):
        bytes_ = _batch_bytes(path, batch)
        total += bytes_
        worst = max(worst, bytes_ / max(1, batch.num_rows))
        check_unpacked(str(path), path.stat().st_size, total)
    stored = sum(chunk.total_uncompressed_size for chunk in _chunks(file))
    if total <= REPEAT_FACTOR * stored:
        return usual
    return max(1, min(usual, int(BATCH_BYTES / max(1.0, worst))))


def _repeating_columns(file: pq.ParquetFile) -> list[str]:
    """The columns whose texts or bytes a dictionary may repeat to a harmful size."""
    repeated = {
        chunk.path_in_schema.split(".")[0]
        for chunk in _chunks(file)
        if chunk.physical_type == "BYTE_ARRAY"
        and chunk.has_dictionary_page
        and chunk.num_values * chunk.total_uncompressed_size > BATCH_BYTES
    }
    return [field.name for field in file.schema_arrow if field.name.split(".")[0] in repeated]


def _chunks(file: pq.ParquetFile) -> Iterator[Any]:
    metadata = file.metadata
    for group in range(metadata.num_row_groups):
        part = metadata.row_group(group)
        for at in range(part.num_columns):
            yield part.column(at)


def _dictionaries(
    plain: Path, file: pq.ParquetFile, names: list[str], usual: int
) -> Iterator[pa.RecordBatch]:
    """The columns, with texts as indices into their dictionary."""
    import pyarrow.parquet as pq

    is_text = {field.name: _is_bytes(field.type) for field in file.schema_arrow}
    text_columns = [name for name in names if is_text[name]]
    nested_columns = [name for name in names if not is_text[name]]
    for columns, rows in ((text_columns, usual), (nested_columns, FEW_ROWS)):
        if columns:
            with pq.ParquetFile(plain, read_dictionary=text_columns) as file_again:
                yield from file_again.iter_batches(batch_size=rows, columns=columns)


def _batch_bytes(path: Path, batch: pa.RecordBatch) -> int:
    """The size of the batch after decoding; refuses a cell that is too long."""
    total = 0
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        longest, size = _text_bytes(values)
        check_row(f"{path}, column {name!r}", longest)
        total += size
    return total


def _text_bytes(values: pa.Array) -> tuple[int, int]:
    """The bytes of the longest text, and of all texts."""
    type_ = values.type
    if pa.types.is_dictionary(type_):
        if not _is_bytes(type_.value_type) or not len(values.dictionary):
            return 0, int(values.nbytes)
        lengths = pc.fill_null(pc.binary_length(values.dictionary), 0).to_numpy()
        used_lengths = lengths[values.indices.drop_null().to_numpy()].astype(np.int64)
        return int(used_lengths.max(initial=0)), int(used_lengths.sum())
    if pa.types.is_struct(type_):
        inner = [_text_bytes(values.field(at)) for at in range(type_.num_fields)]
    elif pa.types.is_map(type_):
        inner = [_text_bytes(values.keys), _text_bytes(values.items)]
    elif pa.types.is_list(type_) or pa.types.is_large_list(type_):
        inner = [_text_bytes(values.flatten())]
    elif _is_bytes(type_):
        return int(pc.max(pc.binary_length(values)).as_py() or 0), int(values.nbytes)
    else:
        return 0, int(values.nbytes)
    return max((longest for longest, _ in inner), default=0), sum(size for _, size in inner)


def _is_bytes(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(type_)
        or pa.types.is_large_string(type_)
        or pa.types.is_binary(type_)
        or pa.types.is_large_binary(type_)
    )


def read_parquet(path: Path, encoding: str | None) -> Iterator[Batch]:
    """Rows of a Parquet file; ``encoding`` does not apply, as Parquet holds UTF-8."""
    import pyarrow.parquet as pq

    with read_errors(path):
        try:
            plain = unpack(path, ".parquet")
            with pq.ParquetFile(plain) as file:
                check_footer(path, file)
                rows = rows_at_once(path, plain, file)
                yield typed_batch(file.schema_arrow.empty_table(), str(path))
                names = _list_names(file.schema_arrow)
                for batch in file.iter_batches(batch_size=rows):
                    part = with_list_names(pa.Table.from_batches([batch]), names)
                    yield typed_batch(part, str(path))
        except pa.ArrowException as error:
            reason = first_line(error)
            rule = f"is not a readable Parquet file: {reason}"
            remedy = "Write it again, or give it the file ending of its format."
            raise DataError(str(path), rule, None, remedy) from error


def typed_batch(table: pa.Table, source: str = "the table") -> Batch:
    """An Arrow table of any types, as strings; lists, objects and bytes are nested columns."""
    columns: dict[str, pa.Array] = {}
    column_types: dict[str, set[ColumnType]] = {}
    for name in table.column_names:
        values = table[name].combine_chunks()
        if isinstance(values.type, pa.BaseExtensionType):
            values = values.storage
        column_type = _column_type(values.type)
        column_types[name] = {column_type}
        try:
            columns[name] = _as_strings(values, column_type)
            # A damaged file may hold offsets beyond its data, and reading them would kill the
            # process.
            columns[name].validate(full=True)
        except (pa.ArrowException, ValueError) as error:
            reason = first_line(error)
            rule = f"holds values that cannot be read: {reason}"
            remedy = "Write the column again, as texts or numbers, or remove it."
            raise DataError(f"{source}, column {name!r}", rule, None, remedy) from error
    return Batch(columns, column_types)


def with_list_names(table: pa.Table, names: Mapping[str, Sequence[str]]) -> pa.Table:
    """The table with ``names`` for the numbers in its columns of lists; a number without a name
    becomes null."""
    for column, known in names.items():
        spelled = dict(enumerate(known))
        cells = [
            None if cell is None else [spelled.get(number) for number in cell]
            for cell in table[column].to_pylist()
        ]
        named_lists = pa.array(cells, pa.list_(pa.string()))
        table = table.set_column(table.column_names.index(column), column, named_lists)
    return table


def _list_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names for the numbers in columns of lists, where ``datasets`` wrote the file: it stores
    them in the schema."""
    try:
        hub_metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = hub_metadata["info"]["features"]
        inner = {
            column: feature["feature"]
            for column, feature in features.items()
            if column in schema.names and isinstance(feature, dict) and "feature" in feature
        }
        return {
            column: list(map(str, one["names"]))
            for column, one in inner.items()
            if isinstance(one, dict) and one.get("_type") == "ClassLabel" and one.get("names")
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _column_type(type: pa.DataType) -> ColumnType:
    if pa.types.is_dictionary(type):
        return _column_type(type.value_type)
    if pa.types.is_boolean(type):
        return "boolean"
    if pa.types.is_integer(type):
        return "integer"
    if pa.types.is_floating(type) or pa.types.is_decimal(type):
        return "float"
    nested = (
        pa.types.is_nested(type)
        or pa.types.is_binary(type)
        or pa.types.is_large_binary(type)
        or pa.types.is_fixed_size_binary(type)
    )
    return "nested" if nested else "text"


def _as_strings(values: pa.Array, column_type: ColumnType) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.nulls(0, pa.string())
    if column_type == "nested":
        # Lists and objects become JSON; bytes, nested dates and the like have no JSON form: null.
        try:
            written = [None if v is None else write_json_cell(v) for v in values.to_pylist()]
        except TypeError:
            return pa.nulls(len(values), pa.string())
        return pa.array(written, pa.string())
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type):
        # pandas writes a missing number as NaN.
        values = pc.if_else(pc.is_nan(values), None, values)
    return values.cast(pa.string())


READERS.add("parquet", Reader(".parquet", read_parquet))
