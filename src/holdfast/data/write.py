"""Write the rows that stay, with labels as indices, to memory-mapped Arrow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.files import disk_errors
from holdfast.core.records import Finding
from holdfast.core.wording import counted, have
from holdfast.data.clean import Tally, complete, meant
from holdfast.data.labels.classes import UNKNOWN, Classes
from holdfast.data.labels.rare import rare_finding
from holdfast.data.raw import Raw
from holdfast.data.scratch import scratch_file, stored_rows
from holdfast.data.table import Columns

if TYPE_CHECKING:
    import datasets


def write_rows(
    raw: Raw, columns: Columns, made: Classes, *, need_label: bool
) -> tuple[datasets.Dataset, tuple[Finding, ...]]:
    """The rows as a data set on disk, and what was done to rows on the way."""

    path, schema = scratch_file("rows"), _schema(columns)
    written, values = _lookup(made)
    small, unknown = Tally(), Tally()
    rare = pa.array(made.small, pa.string())
    with disk_errors(path), pa.ipc.new_stream(str(path), schema) as target:
        for batch in meant(raw, columns):
            batch = batch.filter(complete(batch))
            if columns.label is not None:
                labels = batch.column("label")
                small.add(batch.column("row").filter(pc.is_in(labels, rare)))
                index = pc.fill_null(pc.take(values, pc.index_in(labels, written)), UNKNOWN)
                unknown.add(
                    batch.column("row").filter(
                        pc.and_(pc.is_valid(labels), pc.equal(index, UNKNOWN))
                    )
                )
                batch = _keep(batch, index, need_label)
            else:
                batch = batch.append_column(
                    "label", pa.array(np.full(batch.num_rows, UNKNOWN, np.int64))
                )
            target.write_batch(batch.select(schema.names))
    rows = stored_rows(path)
    return rows, _findings(made, small, unknown)


def _schema(columns: Columns) -> pa.Schema:
    fields = [("row", pa.int64()), ("text", pa.string())]
    if len(columns.text) > 1 and columns.template is None:
        fields.append(("text_pair", pa.string()))
    fields.append(("label", pa.int64()))
    if columns.group is not None:
        fields.append(("group", pa.string()))
    return pa.schema(fields)


def _lookup(made: Classes) -> tuple[pa.Array, pa.Array]:
    written = pa.array(list(made.indices), pa.string())
    return written, pa.array(list(made.indices.values()), pa.int64())


def _keep(batch: pa.RecordBatch, index: pa.Array, need_label: bool) -> pa.RecordBatch:
    position = batch.schema.get_field_index("label")
    # ``GONE`` is below both.
    lowest = 0 if need_label else UNKNOWN
    return batch.set_column(position, "label", index).filter(pc.greater_equal(index, lowest))


def _findings(made: Classes, small: Tally, unknown: Tally) -> tuple[Finding, ...]:
    found = []
    if made.small:
        found.append(rare_finding(made.small, made.counts, small.rows, made.rare))
    if unknown.count:
        others = sorted(name for name, index in made.indices.items() if index == UNKNOWN)
        found.append(
            Finding(
                "unknown_labels",
                "warn",
                unknown.count / max(1, sum(made.counts.values())),
                unknown.count,
                tuple(unknown.rows),
                f"{counted(unknown.count, 'row')} {have(unknown.count)} a label that the run "
                f"does not know ({', '.join(map(repr, others[:5]))}); their label is not used",
                "Correct them, or train on them.",
            )
        )
    return tuple(found)
