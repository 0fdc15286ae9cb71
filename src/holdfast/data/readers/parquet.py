"""Parquet, batch by batch. Numbers and booleans become the strings that a source would write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.errors import DataError
from holdfast.core.input_errors import first_line
from holdfast.data.cells import write_json_cell
from holdfast.data.raw import Batch, Kind, reading
from holdfast.data.readers import READERS, Reader
from holdfast.data.readers.parquet_size import check_footer, rows_at_once
from holdfast.data.readers.text import unpacked


def read_parquet(path: Path, encoding: str | None) -> Iterator[Batch]:
    """Rows of a Parquet file; ``encoding`` does not apply, as Parquet holds UTF-8."""
    import pyarrow.parquet as pq

    with reading(path):
        try:
            plain = unpacked(path, ".parquet")
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
            raise DataError(
                str(path),
                f"is not a readable Parquet file: {reason}",
                None,
                "Write it again, or give it the ending of what it is.",
            ) from error


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
            # A damaged file may hold offsets beyond its data, which end the process when they are
            # read.
            columns[name].validate(full=True)
        except (pa.ArrowException, ValueError) as error:
            reason = first_line(error)
            raise DataError(
                f"{source}, column {name!r}",
                f"holds values that cannot be read: {reason}",
                None,
                "Write the column again, as texts or numbers, or leave it out.",
            ) from error
    return Batch(columns, kinds)


def with_list_names(table: pa.Table, names: Mapping[str, Sequence[str]]) -> pa.Table:
    """The table with the numbers in its columns of lists as the ``names`` of the column; a number
    that has none becomes null."""
    for column, known in names.items():
        spelled = dict(enumerate(known))
        cells = [
            None if cell is None else [spelled.get(number) for number in cell]
            for cell in table[column].to_pylist()
        ]
        made = pa.array(cells, pa.list_(pa.string()))
        table = table.set_column(table.column_names.index(column), column, made)
    return table


def _list_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of the numbers in columns of lists, where ``datasets`` wrote the file: it keeps
    them beside the columns."""
    try:
        told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = told["info"]["features"]
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
        pa.types.is_nested(type)
        or pa.types.is_binary(type)
        or pa.types.is_large_binary(type)
        or pa.types.is_fixed_size_binary(type)
    )
    return "nested" if nested else "text"


def _spelled(values: pa.Array, kind: Kind) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.nulls(0, pa.string())
    if kind == "nested":
        # Lists and objects as JSON; bytes, dates inside and the like have no such form: null.
        try:
            written = [None if v is None else write_json_cell(v) for v in values.to_pylist()]
        except TypeError:
            return pa.nulls(len(values), pa.string())
        return pa.array(written, pa.string())
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type):
        # NaN is how pandas writes a missing number.
        values = pc.if_else(pc.is_nan(values), None, values)
    return values.cast(pa.string())


READERS.add("parquet", Reader(".parquet", read_parquet))
