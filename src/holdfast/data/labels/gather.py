"""Rows with a text and a label that is no class: gathered once, then written with what was made of
their labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.files import disk_errors
from holdfast.core.records import Finding, Ints
from holdfast.data.clean import complete, meant, missing_findings
from holdfast.data.labels.survey import survey
from holdfast.data.raw import Raw
from holdfast.data.scratch import scratch_file, stored_rows
from holdfast.data.table import Columns
from holdfast.data.texts.normal import normal_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    import datasets


@dataclass(frozen=True, slots=True)
class Gathered:
    """The labels as written of the rows that stay; ``units`` [n] numbers their texts or groups, so
    that copies count once; ``rows`` [n] source positions; ``findings`` what was left out."""

    written: list[str]
    units: Ints
    rows: Ints
    findings: tuple[Finding, ...]


def gather_labels(raw: Raw, columns: Columns) -> Gathered:
    """Look at every row; refuses a text column that is all numbers or all empty."""
    seen = survey(raw, columns, enough=0)
    findings = missing_findings(
        columns, len(raw), text=seen.no_text, label=seen.no_label, group=seen.no_group
    )
    written: list[str] = []
    rows: list[int] = []
    marks: list[int] = []
    for batch in _used(raw, columns):
        written += batch.column("label").to_pylist()
        rows += batch.column("row").to_pylist()
        by = batch.column("group" if columns.group else "text").to_pylist()
        # Another number in each process, as Python salts it: only equality is asked.
        marks += [hash(value if columns.group else normal_text(value)) for value in by]
    units = np.unique(np.array(marks, dtype=np.int64), return_inverse=True)[1].reshape(-1)
    return Gathered(written, units, np.array(rows, dtype=np.int64), tuple(findings))


def write_gathered(
    raw: Raw,
    columns: Columns,
    strata: Ints,
    name: str,
    type_: pa.DataType,
    made: Callable[[int, int], pa.Array],
) -> datasets.Dataset:
    """The rows on disk: ``label`` is the stratum, and ``name`` the column that ``made(start,
    stop)`` gives of these gathered rows."""

    path = scratch_file("rows")
    schema = _schema(columns, pa.field(name, type_))
    start = 0
    with disk_errors(path), pa.ipc.new_stream(str(path), schema) as target:
        for batch in _used(raw, columns):
            stop = start + batch.num_rows
            arrays = {field: batch.column(field) for field in batch.schema.names}
            arrays["label"] = pa.array(strata[start:stop], pa.int64())
            arrays[name] = made(start, stop)
            target.write_batch(pa.record_batch([arrays[f] for f in schema.names], schema=schema))
            start = stop
    return stored_rows(path)


def _used(raw: Raw, columns: Columns) -> Iterator[pa.RecordBatch]:
    for batch in meant(raw, columns):
        yield batch.filter(pc.and_(complete(batch), pc.is_valid(batch.column("label"))))


def _schema(columns: Columns, own: pa.Field) -> pa.Schema:
    fields = [pa.field("row", pa.int64()), pa.field("text", pa.string())]
    if len(columns.text) > 1 and columns.template is None:
        fields.append(pa.field("text_pair", pa.string()))
    fields += [pa.field("label", pa.int64()), own]
    if columns.group is not None:
        fields.append(pa.field("group", pa.string()))
    return pa.schema(fields)
