"""Rows to be predicted: the text alone is read, whatever else the source holds.

Differs from ``load_table`` in that no column is looked for by itself and none is taken for a label:
the run has said which columns it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from holdfast.core.discovery import nearest
from holdfast.core.errors import DataError
from holdfast.core.files import disk_errors
from holdfast.data.clean import complete, meant
from holdfast.data.columns.roles import check_column
from holdfast.data.raw import Raw
from holdfast.data.scratch import scratch_file, stored_rows
from holdfast.data.table import Columns, Table


def renamed(raw: Raw, expected: Sequence[str], given: Sequence[str] | None) -> Raw:
    """The source with the columns ``given`` under the names ``expected`` that the run reads.

    Raises ``DataError`` where one is not there, or there are more or fewer.
    """
    names = tuple(given) if given else tuple(expected)
    if len(names) != len(expected):
        raise DataError(
            "--text",
            f"must name {len(expected)} columns for this run, in the order of "
            f"{', '.join(expected)}",
            ", ".join(names),
            "Give --text once for each.",
        )
    for name in names:
        if name not in raw.names:
            read = "" if given else ", which the run reads"
            raise DataError(
                raw.source,
                f"has no column {name!r}{read}",
                ", ".join(raw.names),
                f"{nearest(name, raw.names)} Choose the column with --text.",
            )
    if names == tuple(expected):
        return raw
    called = dict(zip(names, expected, strict=True))
    # A column that happens to have an expected name gives way to the one that is meant.
    kept = [name for name in raw.names if name in called or name not in expected]
    table = raw.table.select(kept).rename_columns([called.get(name, name) for name in kept])
    kinds = {called.get(name, name): raw.kinds[name] for name in kept if name in raw.kinds}
    return replace(raw, table=table, kinds=kinds)


def unlabelled(raw: Raw, columns: Columns, *, label: int = -1, target: bool = False) -> Table:
    """The rows that have their texts, each with the same ``label`` (and an empty ``target``).

    A row without text is not among them: ``row`` says which are. Streams from the mapped source to
    disk, so that memory holds one batch.
    """

    for name in columns.text:
        if columns.template is None:
            check_column(raw, name)
    plain = replace(columns, label=None, group=None)
    schema = _schema(plain, target)
    path = scratch_file("unlabelled")
    with disk_errors(path), pa.ipc.new_stream(str(path), schema) as sink:
        for batch in meant(raw, plain):
            batch = batch.filter(complete(batch))
            rows = batch.num_rows
            batch = batch.append_column("label", pa.array(np.full(rows, label, dtype=np.int64)))
            if target:
                batch = batch.append_column("target", pa.array([""] * rows, pa.string()))
            sink.write_batch(batch.select(schema.names))
    rows_ = stored_rows(path)
    return Table(rows_, (), plain, raw.source, len(raw))


def _schema(columns: Columns, target: bool) -> pa.Schema:
    fields = [("row", pa.int64()), ("text", pa.string())]
    if len(columns.text) > 1 and columns.template is None:
        fields.append(("text_pair", pa.string()))
    fields.append(("label", pa.int64()))
    return pa.schema([*fields, *([("target", pa.string())] if target else [])])
