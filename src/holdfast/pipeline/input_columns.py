"""The columns of a file that is predicted, in the types that its values have, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.door import door
from holdfast.core.errors import DataError
from holdfast.data.raw import Raw

ROWS = 2_048


def is_parquet(path: Path | None) -> bool:
    """Whether a file is read in its own types."""
    return path is not None and path.is_file() and path.suffix.lower() == ".parquet"


def typed_parts(raw: Raw, file: Path | None) -> Iterator[pa.Table]:
    """The input's columns, at most ``ROWS`` rows at a time and at least once: of a Parquet file as
    they are, of others as the types that their values have."""
    if file is not None and is_parquet(file):
        yield from _parquet_parts(file, len(raw))
        return
    types = {name: _type_of(raw, name) for name in raw.names}
    for start in range(0, max(1, len(raw)), ROWS):
        piece = raw.table.slice(start, ROWS)
        yield pa.table({name: piece[name].cast(types[name]) for name in raw.names})


def _parquet_parts(file: Path, rows: int) -> Iterator[pa.Table]:
    """The columns of a Parquet file in their own types; it must still hold the ``rows`` that were
    read of it before."""
    import pyarrow.parquet as parquet

    rule, seen = "changed while it was read", 0
    remedy = "Run the command again when nothing writes into the file."
    with door(str(file), DataError, rule, remedy), parquet.ParquetFile(file) as source:
        if not rows:
            yield source.schema_arrow.empty_table()
        for batch in source.iter_batches(batch_size=ROWS):
            seen += batch.num_rows
            if seen > rows:
                break
            yield pa.Table.from_batches([batch])
    if seen != rows:
        raise DataError(str(file), rule, f"{rows} rows, then {seen}", remedy)


def _type_of(raw: Raw, name: str) -> pa.DataType:
    """The type of a column whose values a source wrote as numbers or booleans, where all of them
    can be read back; text otherwise."""
    kinds = raw.kinds.get(name, set())
    likely: dict[frozenset[str], pa.DataType] = {
        frozenset({"integer"}): pa.int64(),
        frozenset({"float"}): pa.float64(),
        frozenset({"integer", "float"}): pa.float64(),
        frozenset({"boolean"}): pa.bool_(),
    }
    wanted = likely.get(frozenset(kinds))
    if wanted is None:
        return pa.string()
    try:
        for chunk in raw.table[name].chunks:
            cells = chunk.cast(wanted)
            # JSON has no infinity: a column that holds one is kept as it is written.
            if wanted == pa.float64() and pc.all(pc.is_finite(cells)).as_py() is False:
                return pa.string()
    except pa.ArrowException:
        return pa.string()
    return wanted
