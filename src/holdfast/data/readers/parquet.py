"""Parquet, batch by batch. Numbers and booleans become the strings that a source would write.

A page can repeat one value of a dictionary a million times in a few bytes: texts are read as their
dictionary, measured, and only then written out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.errors import DataError
from holdfast.data.cells import write_json_cell
from holdfast.data.limits import MB, check_columns, check_row, check_rows, check_unpacked
from holdfast.data.raw import Batch, Kind, batch_rows, reading, refuse_repeated
from holdfast.data.readers import READERS, Reader
from holdfast.data.readers.text import unpacked

# What a batch may hold once its repeated values are written out.
_BATCH_BYTES = 64 * MB


def read_parquet(path: Path, encoding: str | None) -> Iterator[Batch]:
    """Rows of a Parquet file; ``encoding`` does not apply, as Parquet holds UTF-8."""
    import pyarrow.parquet as pq

    with reading(path):
        try:
            plain = unpacked(path, ".parquet")
            with pq.ParquetFile(plain) as file:
                _check(path, file)
                repeating = _dictionaries(file.metadata)
            with pq.ParquetFile(plain, read_dictionary=repeating) as file:
                yield typed_batch(file.schema_arrow.empty_table(), str(path))
                size, held = path.stat().st_size, 0
                columns = len(file.schema_arrow.names)
                for batch in file.iter_batches(batch_size=batch_rows(columns)):
                    bytes_ = _bytes_of(path, batch)
                    held += bytes_
                    check_unpacked(str(path), size, held)
                    for part in _parts(batch, bytes_):
                        yield typed_batch(pa.Table.from_batches([part]), str(path))
        except pa.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                str(path), f"is not a readable Parquet file: {reason}", None,
                "Write it again, or give it the ending of what it is.",
            ) from error  # fmt: skip


def _check(path: Path, file: Any) -> None:
    """What the footer alone tells: columns, rows, and how much there is to unpack."""
    names = [field.name for field in file.schema_arrow]
    check_columns(str(path), names)
    refuse_repeated(str(path), names, "Give each column a name of its own.")
    if not names:
        raise DataError(
            str(path), "has no columns", None, "It needs a column of texts and one of labels."
        )
    told, size = file.metadata, path.stat().st_size
    check_rows(str(path), size, told.num_rows)
    parts = [told.row_group(at) for at in range(told.num_row_groups)]
    check_unpacked(str(path), size, sum(part.total_byte_size for part in parts))
    for part in parts:
        for at in range(part.num_columns):
            column = part.column(at)
            mean = column.total_uncompressed_size // max(1, part.num_rows)
            check_row(f"{path}, column {column.path_in_schema!r}", mean)


def _dictionaries(told: Any) -> list[str]:
    """The columns of texts or bytes that may repeat values of a dictionary."""
    found = {
        column.path_in_schema
        for group in range(told.num_row_groups)
        for at in range(told.row_group(group).num_columns)
        for column in (told.row_group(group).column(at),)
        if column.physical_type == "BYTE_ARRAY" and column.has_dictionary_page
    }
    return sorted(found)


def _bytes_of(path: Path, batch: pa.RecordBatch) -> int:
    """What the batch takes once it is written out; refuses a cell that is too long."""
    total = 0
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        longest, held = _measured(values)
        check_row(f"{path}, column {name!r}", longest)
        total += held
    return total


def _measured(values: pa.Array) -> tuple[int, int]:
    """The bytes of the longest text within, and of all of them."""
    type_ = values.type
    if pa.types.is_dictionary(type_):
        if not _is_bytes(type_.value_type) or not len(values.dictionary):
            return 0, int(values.nbytes)
        lengths = pc.fill_null(pc.binary_length(values.dictionary), 0).to_numpy()
        taken = lengths[values.indices.drop_null().to_numpy()].astype(np.int64)
        return int(taken.max(initial=0)), int(taken.sum())
    if pa.types.is_struct(type_):
        inner = [_measured(values.field(at)) for at in range(type_.num_fields)]
    elif pa.types.is_map(type_):
        inner = [_measured(values.keys), _measured(values.items)]
    elif pa.types.is_list(type_) or pa.types.is_large_list(type_):
        inner = [_measured(values.flatten())]
    elif _is_bytes(type_):
        return int(pc.max(pc.binary_length(values)).as_py() or 0), int(values.nbytes)
    else:
        return 0, int(values.nbytes)
    return max((longest for longest, _ in inner), default=0), sum(held for _, held in inner)


def _is_bytes(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(type_) or pa.types.is_large_string(type_)
        or pa.types.is_binary(type_) or pa.types.is_large_binary(type_)
    )  # fmt: skip


def _parts(batch: pa.RecordBatch, bytes_: int) -> Iterator[pa.RecordBatch]:
    """The batch, in several where its values, written out, would fill too much memory."""
    if bytes_ <= _BATCH_BYTES:
        yield batch
        return
    rows = max(1, batch.num_rows * _BATCH_BYTES // bytes_)
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def typed_batch(table: pa.Table, source: str = "the table") -> Batch:
    """An Arrow table of any types, as strings; lists, objects and bytes are nested columns."""
    columns: dict[str, pa.Array] = {}
    kinds: dict[str, set[Kind]] = {}
    for name in table.column_names:
        values = table[name].combine_chunks()
        if isinstance(values.type, pa.BaseExtensionType):
            values = values.storage
        kind = _kind(values.type)
        kinds[name] = {kind}
        try:
            columns[name] = _spelled(values, kind)
            columns[name].validate(full=True)
        except (pa.ArrowException, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"{source}, column {name!r}", f"holds values that cannot be read: {reason}", None,
                "Write the column again, as texts or numbers, or leave it out.",
            ) from error  # fmt: skip
    return Batch(columns, kinds)


def _kind(type: pa.DataType) -> Kind:
    if pa.types.is_dictionary(type):
        return _kind(type.value_type)
    if pa.types.is_boolean(type):
        return "boolean"
    if pa.types.is_integer(type):
        return "integer"
    if pa.types.is_floating(type) or pa.types.is_decimal(type):
        return "float"
    nested = (
        pa.types.is_nested(type) or pa.types.is_binary(type) or pa.types.is_large_binary(type)
        or pa.types.is_fixed_size_binary(type)
    )  # fmt: skip
    return "nested" if nested else "text"


def _spelled(values: pa.Array, kind: Kind) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.nulls(0, pa.string())
    if kind == "nested":
        return _as_json(values)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)
    return values.cast(pa.string())


def _as_json(values: pa.Array) -> pa.Array:
    """Lists and objects as JSON; bytes, dates inside and the like have no such form: null."""
    try:
        written = [None if v is None else write_json_cell(v) for v in values.to_pylist()]
    except TypeError:
        return pa.nulls(len(values), pa.string())
    return pa.array(written, pa.string())


READERS.add("parquet", Reader(".parquet", read_parquet))
