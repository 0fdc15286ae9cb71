"""From a source to a memory-mapped ``Table`` of texts, with classes or without.

With classes: read → choose the columns → survey → make the classes → write. For rows to predict,
and for unlabelled texts, no column is guessed and none is used as a label: the run names the
columns that it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.decisions import decisions_in, findings_in, notify, record_decisions
from holdfast.core.discovery import suggest_name
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Finding
from holdfast.core.wording import count_phrase, has_or_have
from holdfast.data.clean import (
    Tally,
    has_all_texts,
    report_missing,
    role_columns,
    row_schema,
    survey_labels,
)
from holdfast.data.columns.columns import choose_columns
from holdfast.data.columns.roles import check_column
from holdfast.data.labels.classes import UNKNOWN, Classes, make_classes, report_rare
from holdfast.data.labels.label_type import label_counts
from holdfast.data.labels.spelling import missing_labels
from holdfast.data.options import RowOptions
from holdfast.data.raw import Raw
from holdfast.data.scratch import write_batches
from holdfast.data.source import read_source
from holdfast.data.table import Columns, Log, Table

if TYPE_CHECKING:
    import datasets

DEFAULT_OPTIONS = RowOptions()


def load_table(source: str | Path, options: RowOptions = DEFAULT_OPTIONS) -> Table:
    """Read a file or a hub data set, choose its columns, and drop rows with missing values.

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
    """Read the source as the options say, and refuse it without rows. ``needs`` says what each row
    must have, for the error."""
    raw = read(source, options.encoding, options.config)
    raw = options.view(raw) if options.view is not None else raw
    refuse_empty(raw, needs)
    return raw


def refuse_empty(raw: Raw, needs: str = "a text and a label") -> None:
    """Refuse a source without rows."""
    if not len(raw):
        rule = "has a header but no rows" if raw.names else "is empty"
        raise DataError(raw.source, rule, None, f"Add rows with {needs}.")


def read_table(
    raw: Raw,
    rows: datasets.Dataset,
    classes: tuple[str, ...],
    columns: Columns,
    log: Log,
    names: tuple[str, ...] = (),
) -> Table:
    """The table of a source, with the decisions and findings of ``log``."""
    decisions = (*raw.decisions, *decisions_in(log))
    return Table(rows, classes, columns, raw.source, len(raw), findings_in(log), decisions, names)


def table_from_raw(raw: Raw, options: RowOptions) -> Table:
    """The table of a source that was already read."""
    refuse_empty(raw)
    with record_decisions() as choice:
        columns = choose_columns(raw, options)
    if columns.label is not None and options.labels == "merged":
        # Before the survey: a spelling of "no label" must not count as a class.
        missing = missing_labels(label_counts(raw, columns.label), options.classes or ())
        columns = replace(columns, label_missing=missing)
    finds_classes = options.classes is None and options.need_label
    surveyed = survey_labels(
        raw,
        columns,
        texts_needed=options.rare_below if finds_classes else 0,
        need_label=options.need_label,
    )
    with record_decisions() as log:
        classes = make_classes(raw, columns, surveyed, options)
        no_label = surveyed.no_label if options.need_label else Tally()
        report_missing(
            columns, len(raw), text=surveyed.no_text, label=no_label, group=surveyed.no_group
        )
        rows = _write(raw, columns, classes, need_label=options.need_label)
    return Table(
        rows,
        classes.classes,
        columns,
        raw.source,
        len(raw),
        findings_in(log, choice),
        (*raw.decisions, *decisions_in(choice, log)),
    )


def _write(raw: Raw, columns: Columns, classes: Classes, *, need_label: bool) -> datasets.Dataset:
    """Write the rows that are kept, with labels as indices, and log the findings."""
    written = pa.array(list(classes.indices), pa.string())
    values = pa.array(list(classes.indices.values()), pa.int64())
    small, unknown, schema = Tally(), Tally(), row_schema(columns)
    rare = pa.array(classes.rare_labels, pa.string())

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in role_columns(raw, columns):
            batch = batch.filter(has_all_texts(batch))
            if columns.label is None:
                index = pa.array(np.full(batch.num_rows, UNKNOWN, np.int64))
                yield batch.append_column("label", index).select(schema.names)
                continue
            labels, rows = batch.column("label"), batch.column("row")
            small.add(rows.filter(pc.is_in(labels, rare)))
            index = pc.fill_null(pc.take(values, pc.index_in(labels, written)), UNKNOWN)
            unknown.add(rows.filter(pc.and_(pc.is_valid(labels), pc.equal(index, UNKNOWN))))
            batch = batch.set_column(batch.schema.get_field_index("label"), "label", index)
            # ``DROPPED`` is below both.
            is_kept = pc.greater_equal(index, 0 if need_label else UNKNOWN)
            yield batch.filter(is_kept).select(schema.names)

    rows = write_batches("rows", schema, batches())
    if classes.rare_labels:
        report_rare(classes.rare_labels, classes.counts, small.rows, classes.rare_option)
    if unknown.count:
        others = sorted(name for name, index in classes.indices.items() if index == UNKNOWN)
        notify(
            Finding(
                "unknown_labels",
                "warn",
                unknown.count / max(1, sum(classes.counts.values())),
                unknown.count,
                tuple(unknown.rows),
                f"{count_phrase(unknown.count, 'row')} {has_or_have(unknown.count)} a label "
                "that the run "
                f"does not know ({', '.join(map(repr, others[:5]))}); these labels are ignored",
                "Correct the labels, or train on these rows too.",
            )
        )
    return rows


def rename_columns(raw: Raw, expected: Sequence[str], given_names: Sequence[str] | None) -> Raw:
    """The source with its columns ``given_names`` renamed to ``expected``, the names that the run
    reads.

    Raises ``DataError`` where a column is missing, or the numbers of names differ.
    """
    names = tuple(given_names) if given_names else tuple(expected)
    if len(names) != len(expected):
        rule = (
            f"must name {len(expected)} columns for this run, in the order of {', '.join(expected)}"
        )
        raise DataError("--text", rule, ", ".join(names), "Give --text once for each column.")
    for name in names:
        if name not in raw.names:
            read = "" if given_names else ", which the run reads"
            rule = f"has no column {name!r}{read}"
            remedy = f"{suggest_name(name, raw.names)} Choose the column: --text COLUMN."
            raise DataError(raw.source, rule, ", ".join(raw.names), remedy)
    if names == tuple(expected):
        return raw
    new_names = dict(zip(names, expected, strict=True))
    # An unrelated column that already has an expected name is replaced by the named one.
    kept_names = [name for name in raw.names if name in new_names or name not in expected]
    table = raw.table.select(kept_names).rename_columns(
        [new_names.get(name, name) for name in kept_names]
    )
    column_types = {
        new_names.get(name, name): raw.column_types[name]
        for name in kept_names
        if name in raw.column_types
    }
    return replace(raw, table=table, column_types=column_types)


def unlabelled_table(raw: Raw, columns: Columns, *, label: int = -1, target: bool = False) -> Table:
    """The rows that have all their texts, each with the same ``label`` (and an empty ``target``).

    Rows without a text are dropped; the column ``row`` says which are kept. Streams from the mapped
    source to disk, so that memory holds one batch.
    """
    for name in columns.text:
        if columns.template is None:
            check_column(raw, name)
    plain = replace(columns, label=None, group=None)
    schema = row_schema(plain, *([("target", pa.string())] if target else []))

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in role_columns(raw, plain):
            batch = batch.filter(has_all_texts(batch))
            rows = batch.num_rows
            batch = batch.append_column("label", pa.array(np.full(rows, label, dtype=np.int64)))
            if target:
                batch = batch.append_column("target", pa.array([""] * rows, pa.string()))
            yield batch.select(schema.names)

    rows = write_batches("unlabelled", schema, batches())
    return Table(rows, (), plain, raw.source, len(raw))


UNLABELLED_SETTING = "data.unlabelled"


def read_unlabelled_texts(path: str, rows: Table, encoding: str | None) -> Table:
    """The texts of the file ``path``, from the columns that ``rows`` were read from, or from its
    only column. Labels are not read, and rows without a text are dropped.

    Raises ``RecipeError`` where ``rows`` are pairs of texts, or ``path`` lacks their text columns.
    """
    if rows.has_pairs:
        raise RecipeError(
            UNLABELLED_SETTING, "needs rows with one text each, not pairs", None, "Leave it out."
        )
    raw, columns = read_source(path, encoding, None), rows.columns
    if columns.template is None:
        (column,) = columns.text
        if column not in raw.names and len(raw.names) == 1:
            raw = rename_columns(raw, (column,), raw.names)
    for column in columns.text:  # all columns that a template joins
        if column not in raw.names:
            rule = f"has no column {column!r}, the text column of the source"
            remedy = f"Give the column this name in {path}."
            raise RecipeError(UNLABELLED_SETTING, rule, ", ".join(raw.names), remedy)
    return replace(unlabelled_table(raw, columns), source=path)


def refuse_test_rows(path: str, test_path: str | None) -> None:
    """Refuse to learn from the texts of the test rows."""
    if test_path is not None and _same_path(path, test_path):
        rule = "names the test rows: a model that learned from their texts cannot be scored on them"
        raise RecipeError(UNLABELLED_SETTING, rule, path, "Name a file with other rows.")


def _same_path(one: str, other: str) -> bool:
    try:
        return Path(one).resolve() == Path(other).resolve()
    except (OSError, RuntimeError):
        return one == other
