"""A further column of the source, carried beside the rows of a table under Holdfast's own name."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from holdfast.core.errors import DataError
from holdfast.data.columns.roles import check_present
from holdfast.data.raw import Raw
from holdfast.data.source import read_source
from holdfast.data.table import Table


def with_column(
    table: Table, name: str, column: str, *, encoding: str | None = None, config: str | None = None
) -> Table:
    """``table`` with the source's ``column`` as ``name``, a string or null a row. The source is
    read once more; lists and objects are JSON.

    Raises ``DataError`` where the source has no such column.
    """
    raw = read_source(table.source, encoding, config)
    check_present(raw, column)
    refuse_changed(raw, table)
    values = raw.table[column].take(pa.array(table.column("row"), pa.int64()))
    return replace(table, rows=table.rows.add_column(name, values.to_pylist()))


def refuse_changed(raw: Raw, table: Table) -> None:
    """Refuse a source that was read once more, where its rows are no longer as many as when
    ``table`` was made of it: they would stand beside the wrong ones."""
    if len(raw) != table.source_rows:
        raise DataError(
            table.source,
            "changed while it was read",
            f"{table.source_rows} rows, then {len(raw)}",
            "Run the command again when nothing writes into the file.",
        )
