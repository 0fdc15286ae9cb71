"""How much a Parquet file holds, before it is held.

A page can repeat one value of a dictionary a million times in a few bytes. The footer tells the
columns, the rows and the size of the pages; what their values take once they are written out is
measured on the dictionaries themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.errors import DataError
from holdfast.data.limits import MB, check_columns, check_row, check_rows, check_unpacked
from holdfast.data.raw import batch_rows, refuse_repeated

if TYPE_CHECKING:
    import pyarrow.parquet as pq

# What a batch may hold once its repeated values are written out.
BATCH_BYTES = 64 * MB
# Values that take so many times the bytes of their pages are repeated by a dictionary.
REPEATED = 4
# Lists of texts cannot be read as their dictionary: so few rows at a time are safe as they are.
FEW_ROWS = 256


def check_footer(path: Path, file: pq.ParquetFile) -> None:
    """What the footer alone tells: columns, rows, and how much there is to unpack."""
    names = [field.name for field in file.schema_arrow]
    check_columns(str(path), names)
    refuse_repeated(str(path), names, "Give each column a name of its own.")
    if not names:
        raise DataError(
            str(path), "has no columns", None, "It needs a column of texts and one of labels."
        )
    metadata, size = file.metadata, path.stat().st_size
    check_rows(str(path), size, metadata.num_rows)
    parts = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
    check_unpacked(str(path), size, sum(part.total_byte_size for part in parts))
    for part in parts:
        for at in range(part.num_columns):
            column = part.column(at)
            # The mean is all that the footer tells; the longest cell is measured below, or as it is
            # read.
            mean = column.total_uncompressed_size // max(1, part.num_rows)
            check_row(f"{path}, column {column.path_in_schema!r}", mean)


def rows_at_once(path: Path, plain: Path, file: pq.ParquetFile) -> int:
    """The rows of a batch, fewer where values repeat so much that as many would fill memory.

    ``plain`` is where the file lies unpacked. Raises ``DataError`` where a cell, or all of them, go
    beyond ``data.limits``.
    """
    usual = batch_rows(len(file.schema_arrow.names))
    risky = _repeating(file)
    if not risky:
        return usual
    total, worst = 0, 0.0
    for batch in _dictionaries(plain, file, risky, usual):
        bytes_ = _bytes_of(path, batch)
        total += bytes_
        worst = max(worst, bytes_ / max(1, batch.num_rows))
        check_unpacked(str(path), path.stat().st_size, total)
    stored = sum(chunk.total_uncompressed_size for chunk in _chunks(file))
    if total <= REPEATED * stored:
        return usual
    return max(1, min(usual, int(BATCH_BYTES / max(1.0, worst))))


def _repeating(file: pq.ParquetFile) -> list[str]:
    """The columns whose texts or bytes a dictionary may repeat beyond what is harmless."""
    found = {
        chunk.path_in_schema.split(".")[0]
        for chunk in _chunks(file)
        if chunk.physical_type == "BYTE_ARRAY"
        and chunk.has_dictionary_page
        and chunk.num_values * chunk.total_uncompressed_size > BATCH_BYTES
    }
    return [field.name for field in file.schema_arrow if field.name.split(".")[0] in found]


def _chunks(file: pq.ParquetFile) -> Iterator[Any]:
    metadata = file.metadata
    for group in range(metadata.num_row_groups):
        part = metadata.row_group(group)
        for at in range(part.num_columns):
            yield part.column(at)


def _dictionaries(
    plain: Path, file: pq.ParquetFile, names: list[str], usual: int
) -> Iterator[pa.RecordBatch]:
    """The columns, texts as numbers into their dictionary."""
    import pyarrow.parquet as pq

    kinds = {field.name: _is_bytes(field.type) for field in file.schema_arrow}
    whole = [name for name in names if kinds[name]]
    inner = [name for name in names if not kinds[name]]
    for chosen, rows in ((whole, usual), (inner, FEW_ROWS)):
        if chosen:
            with pq.ParquetFile(plain, read_dictionary=whole) as again:
                yield from again.iter_batches(batch_size=rows, columns=chosen)


def _bytes_of(path: Path, batch: pa.RecordBatch) -> int:
    """What the batch takes once it is written out; refuses a cell that is too long."""
    total = 0
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        longest, size = _measured(values)
        check_row(f"{path}, column {name!r}", longest)
        total += size
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
        pa.types.is_string(type_)
        or pa.types.is_large_string(type_)
        or pa.types.is_binary(type_)
        or pa.types.is_large_binary(type_)
    )
