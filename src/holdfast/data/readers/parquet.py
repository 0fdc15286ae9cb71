"""Parquet, batch by batch. Numbers and booleans become the strings that a source would write."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.errors import DataError
from holdfast.core.files import disk_errors
from holdfast.data.raw import BATCH_ROWS, Batch, Kind, reading
from holdfast.data.readers import READERS, Reader
from holdfast.data.readers.text import open_bytes
from holdfast.data.scratch import scratch_file


def read_parquet(path: Path, encoding: str | None) -> Iterator[Batch]:
    """Rows of a Parquet file; ``encoding`` does not apply, as Parquet holds UTF-8."""
    import pyarrow.parquet as pq

    with reading(path):
        try:
            with pq.ParquetFile(_seekable(path)) as file:
                names = [field.name for field in file.schema_arrow]
                _refuse_repeated(path, names)
                yield typed_batch(file.schema_arrow.empty_table())
                for batch in file.iter_batches(batch_size=BATCH_ROWS):
                    yield typed_batch(pa.Table.from_batches([batch]))
        except pa.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                str(path), f"is not a readable Parquet file: {reason}", None,
                "Write it again, or give it the ending of what it is.",
            ) from error  # fmt: skip


def typed_batch(table: pa.Table) -> Batch:
    """An Arrow table of any types, as strings; lists, objects and bytes are nested columns."""
    columns: dict[str, pa.Array] = {}
    kinds: dict[str, set[Kind]] = {}
    for name in table.column_names:
        values = table[name].combine_chunks()
        kind = _kind(values.type)
        kinds[name] = {kind}
        columns[name] = _spelled(values, kind)
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
    nested = pa.types.is_nested(type) or pa.types.is_binary(type) or pa.types.is_large_binary(type)
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
        written = [None if v is None else json.dumps(v) for v in values.to_pylist()]
    except TypeError:
        return pa.nulls(len(values), pa.string())
    return pa.array(written, pa.string())


def _seekable(path: Path) -> Path:
    if path.suffix.lower() != ".gz":
        return path
    plain = scratch_file("unpacked", ".parquet")
    with open_bytes(path) as packed, _target(plain) as target:
        shutil.copyfileobj(packed, target, 1 << 20)
    return plain


@contextlib.contextmanager
def _target(path: Path) -> Iterator[BinaryIO]:
    with disk_errors(path), path.open("wb") as target:
        yield target


def _refuse_repeated(path: Path, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(
            str(path), "has columns of the same name", ", ".join(map(repr, repeated)),
            "Give each column a name of its own.",
        )  # fmt: skip


READERS.add("parquet", Reader(".parquet", read_parquet))
