"""From a file or a hub name to a ``Table`` of texts and classes in memory-mapped Arrow.

read → choose the columns → survey → make the classes → write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.decisions import notify, recorded
from holdfast.core.errors import DataError
from holdfast.core.records import Finding
from holdfast.core.wording import counted, have
from holdfast.data.clean import Tally, complete, meant, notice_missing, row_schema, survey
from holdfast.data.columns.columns import choose_columns
from holdfast.data.labels.classes import UNKNOWN, Classes, make_classes, notice_rare
from holdfast.data.labels.label_type import label_counts
from holdfast.data.labels.spelling import missing_labels
from holdfast.data.options import RowOptions
from holdfast.data.raw import Raw
from holdfast.data.scratch import write_batches
from holdfast.data.source import read_source
from holdfast.data.table import Columns, Log, Table, decisions_in, findings_in

if TYPE_CHECKING:
    import datasets

PLAIN = RowOptions()


def load_table(source: str | Path, options: RowOptions = PLAIN) -> Table:
    """Read a file or a hub data set, work out its columns, and leave out what is missing.

    ``source`` is a file (.csv, .tsv, .jsonl, .json, .parquet, .xlsx, each also .gz), or a data set
    of the hub as ``name[:config][@split]``.

    Raises
    ------
    DataError : the source, a column or a row cannot be used.
    RecipeError : two settings contradict each other.
    """
    return table_from_raw(read_source(source, options.encoding, options.config), options)


def read_rows(
    source: str | Path,
    options: RowOptions,
    needs: str = "a text and a label",
    read: Callable[[str | Path, str | None, str | None], Raw] = read_source,
) -> Raw:
    """The source as the options say it is read, which must have rows with what a kind ``needs``."""
    raw = read(source, options.encoding, options.config)
    raw = options.view(raw) if options.view is not None else raw
    refuse_empty(raw, needs)
    return raw


def refuse_empty(raw: Raw, needs: str = "a text and a label") -> None:
    """Refuse a source without rows."""
    if not len(raw):
        rule = "has a header but no rows" if raw.names else "is empty"
        raise DataError(raw.source, rule, None, f"It needs rows with {needs}.")


def read_table(
    raw: Raw,
    rows: datasets.Dataset,
    classes: tuple[str, ...],
    columns: Columns,
    log: Log,
    names: tuple[str, ...] = (),
) -> Table:
    """The table of a source, with what was decided and found while it was made (``log``)."""
    decisions = (*raw.decisions, *decisions_in(log))
    return Table(rows, classes, columns, raw.source, len(raw), findings_in(log), decisions, names)


def table_from_raw(raw: Raw, options: RowOptions) -> Table:
    """The table of a source that was read."""
    refuse_empty(raw)
    with recorded() as choice:
        columns = choose_columns(raw, options)
    if columns.label is not None and options.labels == "merged":
        # Before the survey: what stands for no label must not count as a class.
        missing = missing_labels(label_counts(raw, columns.label), options.classes or ())
        columns = replace(columns, label_missing=missing)
    fresh = options.classes is None and options.need_label
    seen = survey(raw, columns, enough=options.rare_below if fresh else 0)
    with recorded() as log:
        made = make_classes(raw, columns, seen, options)
        lacking = seen.no_label if options.need_label else Tally()
        notice_missing(columns, len(raw), text=seen.no_text, label=lacking, group=seen.no_group)
        rows = _write(raw, columns, made, need_label=options.need_label)
    return Table(
        rows,
        made.classes,
        columns,
        raw.source,
        len(raw),
        findings_in(log, choice),
        (*raw.decisions, *decisions_in(choice, log)),
    )


def _write(raw: Raw, columns: Columns, made: Classes, *, need_label: bool) -> datasets.Dataset:
    """The rows that stay, with labels as indices; what was done to rows goes into the log."""
    written = pa.array(list(made.indices), pa.string())
    values = pa.array(list(made.indices.values()), pa.int64())
    small, unknown, schema = Tally(), Tally(), row_schema(columns)
    rare = pa.array(made.small, pa.string())

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in meant(raw, columns):
            batch = batch.filter(complete(batch))
            if columns.label is None:
                index = pa.array(np.full(batch.num_rows, UNKNOWN, np.int64))
                yield batch.append_column("label", index).select(schema.names)
                continue
            labels, rows = batch.column("label"), batch.column("row")
            small.add(rows.filter(pc.is_in(labels, rare)))
            index = pc.fill_null(pc.take(values, pc.index_in(labels, written)), UNKNOWN)
            unknown.add(rows.filter(pc.and_(pc.is_valid(labels), pc.equal(index, UNKNOWN))))
            batch = batch.set_column(batch.schema.get_field_index("label"), "label", index)
            # ``GONE`` is below both.
            kept = pc.greater_equal(index, 0 if need_label else UNKNOWN)
            yield batch.filter(kept).select(schema.names)

    rows = write_batches("rows", schema, batches())
    if made.small:
        notice_rare(made.small, made.counts, small.rows, made.rare)
    if unknown.count:
        others = sorted(name for name, index in made.indices.items() if index == UNKNOWN)
        notify(
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
    return rows
