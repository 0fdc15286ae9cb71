"""Texts with labels of any type: one class, several labels, or a number.

Where a label is not a class, the rows are read twice: first to gather their labels, then to write
each row with its number or its indices of labels, and with its stratum of the split as ``label``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.decisions import (
    decisions_in,
    decisions_to,
    findings_in,
    notify,
    record_decisions,
)
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Decision, Finding, Floats, Ints
from holdfast.core.wording import list_phrase
from holdfast.data.clean import (
    has_all_texts,
    report_missing,
    role_columns,
    row_schema,
    survey_labels,
)
from holdfast.data.columns.columns import choose_columns
from holdfast.data.labels.bins import bin_of, choose_edges, label_set_strata_like, range_names
from holdfast.data.labels.classes import refuse_long_names, sort_classes, unknown_label_error
from holdfast.data.labels.label_type import infer_label_kind, label_counts, open_lists, read_list
from holdfast.data.labels.spelling import (
    match_spellings,
    merge_spellings,
    missing_labels,
    quoted_list,
)
from holdfast.data.limits import LABELS_CHARACTERS, check_classes
from holdfast.data.load import DEFAULT_OPTIONS, read_rows, table_from_raw
from holdfast.data.options import RowOptions
from holdfast.data.raw import Raw
from holdfast.data.scratch import write_batches
from holdfast.data.table import Columns, Table
from holdfast.data.texts.general import normal_text

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True, slots=True)
class GatheredLabels:
    """The labels as written of the rows that are kept; ``units`` [n] numbers their texts or groups,
    so that duplicates count once; ``rows`` [n] source positions."""

    written: list[str]
    units: Ints
    rows: Ints


def gather_labels(raw: Raw, columns: Columns) -> GatheredLabels:
    """Read every row and log missing values; refuses a text column that is all numbers or all
    empty."""
    surveyed = survey_labels(raw, columns, texts_needed=0)
    report_missing(
        columns, len(raw), text=surveyed.no_text, label=surveyed.no_label, group=surveyed.no_group
    )
    written: list[str] = []
    rows: list[int] = []
    marks: list[int] = []
    for batch in _labelled_batches(raw, columns):
        written += batch.column("label").to_pylist()
        rows += batch.column("row").to_pylist()
        by = batch.column("group" if columns.group else "text").to_pylist()
        # Python salts hashes, so numbers differ between processes; only equality is used.
        marks += [hash(value if columns.group else normal_text(value)) for value in by]
    units = np.unique(np.array(marks, dtype=np.int64), return_inverse=True)[1].reshape(-1)
    return GatheredLabels(written, units, np.array(rows, dtype=np.int64))


def write_gathered(
    raw: Raw,
    columns: Columns,
    strata: Ints,
    name: str,
    values: Sequence[object] | Floats,
    column_type: pa.DataType,
) -> datasets.Dataset:
    """Write the rows to disk: ``label`` is the stratum, and ``name`` the column of ``values``, one
    for each gathered row."""
    schema = row_schema(columns, (name, column_type))

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in _labelled_batches(raw, columns):
            stop = start + batch.num_rows
            arrays = {field: batch.column(field) for field in batch.schema.names}
            arrays["label"] = pa.array(strata[start:stop], pa.int64())
            arrays[name] = pa.array(values[start:stop], column_type)
            yield pa.record_batch([arrays[f] for f in schema.names], schema=schema)
            start = stop

    return write_batches("rows", schema, batches())


def _labelled_batches(raw: Raw, columns: Columns) -> Iterator[pa.RecordBatch]:
    for batch in role_columns(raw, columns):
        yield batch.filter(pc.and_(has_all_texts(batch), pc.is_valid(batch.column("label"))))


# Errors are squared, in the user's unit and in deviations of the training rows; doubles end at
# 1.8e308. Natural and technical quantities are far below.
LARGEST = 1e75


def table_of_numbers(raw: Raw, columns: Columns, options: RowOptions) -> Table:
    """Rows with ``value`` float64, and as ``label`` the stratum of the split: the range between
    quantiles (that of ``like``, where it is given). A row without a label is dropped. A label that
    is not a finite number, or above ``LARGEST``, is refused, and so is a source with one distinct
    number, unless a run's rows are read."""
    like, fresh = options.like, options.classes is None
    gathered = gather_labels(raw, columns)
    where = f"{raw.source}, column {columns.label!r}"
    values = _parse_numbers(where, gathered)
    if not len(values):
        raise DataError(where, "has no labels", None, "Choose another column with --label.")
    if like is None and fresh and values.min() == values.max():
        rule = "has the same number in every row, so there is nothing to learn"
        raise DataError(where, rule, float(values[0]), "Choose another column with --label.")
    edges = choose_edges(values, gathered.units) if like is None else range_edges(like)
    rows = write_gathered(raw, columns, bin_of(values, edges), "value", values, pa.float64())
    classes = range_names(edges) if like is None else like.classes
    if like is None:
        because = "so that every split has the same proportions of small and large numbers"
        shown = f"{len(classes)}, between quantiles"
        notify(Decision("ranges of the split", shown, because))
    return Table(rows, classes, columns, raw.source, len(raw))


def range_edges(table: Table) -> Floats:
    """The upper edges of a table's ranges: each is the largest number in it."""
    values, labels = table.column("value"), table.column("label")
    return np.array([values[labels == n].max() for n in range(len(table.classes) - 1)])


def _parse_numbers(where: str, gathered: GatheredLabels) -> Floats:
    values = np.empty(len(gathered.written))
    for at, text in enumerate(gathered.written):
        try:
            values[at] = float(text)
        except ValueError:
            values[at] = math.nan
        if not math.isfinite(values[at]):
            rule = "is not a finite number"
            remedy = "Correct the cell, or empty it to drop the row."
        elif abs(values[at]) > LARGEST:
            rule = "is too large: its squared error would overflow"
            remedy = f"Correct it, or use a larger unit for all numbers: at most {LARGEST:g}."
        else:
            continue
        raise DataError(f"{where}, row {gathered.rows[at]}", rule, text, remedy)
    return values


FEW_ROWS = 3
Sets = list[tuple[str, ...]]


def table_of_sets(raw: Raw, columns: Columns, options: RowOptions) -> Table:
    """Rows with ``labels``, a list of indices into ``names``, and as ``label`` the stratum of the
    split: the set of labels.

    An empty list says that no label applies; an empty cell is a missing label. The ``classes`` of
    the options are the labels of a run (those of ``like``, where it is given): others are refused.
    With ``merged``, labels that are the same but for case and space are merged, and a cell that
    contains only spellings of a missing label is missing.
    """
    where, like = f"{raw.source}, column {columns.label!r}", options.like
    given = tuple(options.classes) if options.classes else like.names if like else None
    if options.labels == "merged":
        columns = _with_missing(raw, columns, given)
    gathered = gather_labels(raw, columns)
    sets = _label_sets(where, gathered, columns.label_separator)
    if options.labels == "merged":
        with record_decisions() as log:
            sets = _merge_label_spellings(sets, given)
        if like is None:
            notify(*log)
    known = _known_labels(where, sets, gathered, given)
    index = {name: number for number, name in enumerate(known)}
    classes, places = label_set_strata_like(
        sets, gathered.units, None if like is None else like.classes
    )
    numbers = [sorted(index[name] for name in labels) for labels in sets]
    rows = write_gathered(raw, columns, places, "labels", numbers, pa.list_(pa.int64()))
    if like is None:
        several = sum(len(labels) > 1 for labels in sets)
        because = (
            f"{len(known)} labels; {several} of {len(sets)} rows have more than one; rare sets "
            "were joined"
        )
        notify(Decision("strata of the split", f"{len(classes)} sets of labels", because))
        _report_rare_labels(sets, known)
    return Table(rows, classes, columns, raw.source, len(raw), names=known)


def _with_missing(raw: Raw, columns: Columns, names: Sequence[str] | None) -> Columns:
    """Treat cells that contain only spellings of a missing label as missing."""
    assert columns.label is not None
    counts = label_counts(raw, columns.label)
    cells = {cell: _split_cell(cell, columns.label_separator) or () for cell in counts}
    gone = {*missing_labels({part for parts in cells.values() for part in parts}, names or ())}
    missing = {cell for cell, parts in cells.items() if parts and gone.issuperset(parts)}
    return replace(columns, label_missing=tuple(sorted({*columns.label_missing, *missing})))


def _merge_label_spellings(sets: Sets, names: tuple[str, ...] | None) -> Sets:
    """The sets with one spelling per label: that of ``names``, else the most frequent. A spelling
    of a missing label is removed from cells with other labels."""
    counts = Counter(label for labels in sets for label in labels)
    gone = {*missing_labels(counts, names or ())}
    counts = Counter({name: rows for name, rows in counts.items() if name not in gone})
    if names is None:
        spelled = merge_spellings(counts)
    else:
        with decisions_to(None):
            spelled = merge_spellings(counts)
        spelled |= match_spellings(counts, names) | {name: name for name in names}
    if gone:
        rows = sum(not gone.isdisjoint(labels) for labels in sets)
        because = f"{quoted_list(sorted(gone))} among other labels means none, in {rows} rows"
        notify(Decision("labels", "left out", because))
    return [
        tuple(sorted({spelled[label] for label in labels if label not in gone})) for labels in sets
    ]


def _label_sets(where: str, gathered: GatheredLabels, separator: str | None) -> Sets:
    # Few distinct cells occur in many rows: each is split once.
    set_of_cell: dict[str, tuple[str, ...]] = {}
    for row, cell in zip(gathered.rows.tolist(), gathered.written, strict=True):
        if cell not in set_of_cell:
            parts = _split_cell(cell, separator)
            if parts is None:
                remedy = (
                    'Write a JSON list such as ["a", "b"], or give the separator of labels: '
                    "--set data.label_separator='|'."
                )
                raise DataError(f"{where}, row {row}", "is not a list of labels", cell, remedy)
            set_of_cell[cell] = parts
    return [set_of_cell[cell] for cell in gathered.written]


def _split_cell(cell: str, separator: str | None) -> tuple[str, ...] | None:
    """The labels of one cell, sorted; ``None`` where it is not a list, or far too long."""
    if len(cell) > LABELS_CHARACTERS:
        return None
    parts = read_list(cell) if separator is None else cell.split(separator)
    return None if parts is None else tuple(sorted({part.strip() for part in parts} - {""}))


def _known_labels(
    where: str, sets: Sets, gathered: GatheredLabels, names: tuple[str, ...] | None
) -> tuple[str, ...]:
    if not sets:
        raise DataError(where, "has no labels", None, "Choose another column with --label.")
    written = sort_classes(label for labels in sets for label in labels)
    if names is not None:
        strange = set(written) - set(names)
        for row, labels in zip(gathered.rows.tolist(), sets, strict=True):
            for label in labels:
                if label in strange:
                    raise unknown_label_error(f"{where}, row {row}", label, names)
        return names
    if len(written) < 2:
        remedy = "Choose another column with --label, or use classes: --set data.label_kind=class."
        raise DataError(where, "has fewer than two distinct labels", ", ".join(written), remedy)
    check_classes(where, len(written))
    refuse_long_names(where, written)
    if len(written) > max(20, len(sets) / 2):
        rule = f"has {len(written)} distinct labels in {len(sets)} rows: they look like free text"
        raise DataError(where, rule, ", ".join(written[:3]), "Choose another column with --label.")
    return written


def _report_rare_labels(sets: Sets, names: tuple[str, ...]) -> None:
    rows = Counter(label for labels in sets for label in labels)
    few = [name for name in names if rows[name] < FEW_ROWS]
    if few:
        count = sum(rows[name] for name in few)
        shown = list_phrase([*map(repr, few)], 10, ", ", ", …")
        because = (
            f"{len(few)} labels occur in fewer than {FEW_ROWS} rows ({shown}): a split may "
            "lack them, "
            "and they can hardly be learned"
        )
        remedy = "Add rows of these labels."
        notify(Finding("rare_labels", "warn", count / len(sets), count, (), because, remedy))


def load_labelled(source: str, options: RowOptions = DEFAULT_OPTIONS) -> Table:
    """The rows of a source with labels of any type: as the options say, or inferred from the
    labels.

    The ``classes`` of the options are the labels of a run where a text has several. Raises
    ``DataError`` where the labels do not have the requested type.
    """
    raw = read_rows(source, options)
    # If the user said that each cell is one class, a cell that looks like a list is one too.
    opened = raw if options.label_kind == "class" else open_lists(raw, options.label)
    with record_decisions() as choice:
        columns = choose_columns(opened, options)
    assert columns.label is not None
    counts = label_counts(opened, columns.label)
    missing = missing_labels(counts, options.classes or ()) if options.labels == "merged" else ()
    counts = {cell: count for cell, count in counts.items() if cell not in missing}
    with record_decisions() as kind_log:
        label_kind, separator = infer_label_kind(counts, options.label_kind, options.separator)
    if options.separator and label_kind != "several":
        rule = f"has no effect where data.label_kind is {label_kind}"
        remedy = "Remove one of the two settings."
        raise RecipeError("data.label_separator", rule, options.separator, remedy)
    if label_kind == "class":
        table = table_from_raw(raw, options)
        columns = replace(table.columns, label_kind="class")
        return replace(
            table, columns=columns, decisions=(*decisions_in(kind_log), *table.decisions)
        )
    if options.rare != "refuse":
        rule = (
            f"has no effect where data.label_kind is {label_kind}: there are no classes "
            "to drop or merge"
        )
        raise RecipeError("data.rare_classes", rule, options.rare, "Leave it out.")
    columns = replace(
        columns, label_kind=label_kind, label_separator=separator, label_missing=missing
    )
    with record_decisions() as log:
        make = table_of_numbers if label_kind == "number" else table_of_sets
        table = make(opened, columns, options)
    return replace(
        table,
        columns=columns,
        findings=findings_in(log, choice),
        decisions=(*raw.decisions, *decisions_in(choice, kind_log, log)),
    )
