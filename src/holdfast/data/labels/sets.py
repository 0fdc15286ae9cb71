"""Texts with several labels each, or none: their sets, and the strata of the division."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from holdfast.core.errors import DataError
from holdfast.core.records import Decision, Finding
from holdfast.data.labels.bins import strata
from holdfast.data.labels.classes import refuse_long, refuse_unknown, sort_classes
from holdfast.data.labels.gather import Gathered, gather_labels, write_gathered
from holdfast.data.labels.label_type import label_counts, read_list
from holdfast.data.labels.spelling import (
    Labels,
    match_spellings,
    merge_spellings,
    missing_labels,
    written,
)
from holdfast.data.limits import LABELS_CHARACTERS, check_classes
from holdfast.data.raw import Raw
from holdfast.data.table import Columns, Table

FEW = 3
Sets = list[tuple[str, ...]]


def table_of_sets(
    raw: Raw,
    columns: Columns,
    names: Sequence[str] | None = None,
    like: Table | None = None,
    labels: Labels = "merged",
) -> Table:
    """Rows with ``labels``, a list of indices into ``names``, and as ``label`` the set of labels
    that the division keeps in proportion.

    An empty list says that no label applies; an empty cell is a missing label. ``names`` are the
    labels of a run (those of ``like``, where it is given): others are refused. With ``merged``,
    labels that are one but for case and space are merged, and a cell of nothing but labels that
    stand for a missing one is missing.
    """
    where = f"{raw.source}, column {columns.label!r}"
    given = tuple(names) if names else like.names if like else None
    if labels == "merged":
        columns = _with_missing(raw, columns, given)
    found = gather_labels(raw, columns)
    sets = _sets(where, found, columns.label_separator)
    merged: tuple[Decision, ...] = ()
    if labels == "merged":
        sets, merged = _merged(sets, given)
    known = _known(where, sets, found, given)
    index = {name: number for number, name in enumerate(known)}
    classes, places = strata(sets, found.units)
    rows = write_gathered(
        raw,
        columns,
        places,
        "labels",
        pa.list_(pa.int64()),
        lambda start, stop: pa.array(
            [sorted(index[name] for name in labels) for labels in sets[start:stop]],
            pa.list_(pa.int64()),
        ),
    )
    table = Table(rows, classes, columns, raw.source, len(raw), found.findings, names=known)
    if like is not None:
        return _in_strata_of(like, table, classes)
    several = sum(len(labels) > 1 for labels in sets)
    decision = Decision(
        "strata of the division",
        f"{len(classes)} sets of labels",
        f"{len(known)} labels, {several} of {len(sets)} rows have more than one; rare sets joined",
    )
    return replace(
        table, findings=(*table.findings, *_few(sets, known)), decisions=(*merged, decision)
    )


def _with_missing(raw: Raw, columns: Columns, names: Sequence[str] | None) -> Columns:
    """The cells whose every label says that it is not known are missing ones."""
    assert columns.label is not None
    counts = label_counts(raw, columns.label)
    cells = {cell: _parts(cell, columns.label_separator) or () for cell in counts}
    gone = {*missing_labels({part for parts in cells.values() for part in parts}, names or ())}
    missing = {cell for cell, parts in cells.items() if parts and gone.issuperset(parts)}
    return replace(columns, label_missing=tuple(sorted({*columns.label_missing, *missing})))


def _merged(sets: Sets, names: tuple[str, ...] | None) -> tuple[Sets, tuple[Decision, ...]]:
    """The sets with one spelling a label: that of ``names``, else the most frequent. What stands
    for a missing label beside others is none of them."""
    counts = Counter(label for labels in sets for label in labels)
    gone = {*missing_labels(counts, names or ())}
    counts = Counter({name: rows for name, rows in counts.items() if name not in gone})
    spelled, decisions = merge_spellings(counts)
    if names is not None:
        spelled, decisions = {**spelled, **match_spellings(counts, names)}, ()
        spelled |= {name: name for name in names}
    if gone:
        rows = sum(not gone.isdisjoint(labels) for labels in sets)
        because = f"{written(sorted(gone))} beside other labels is none, in {rows} rows"
        decisions = (*decisions, Decision("labels", "left out", because))
    made = [
        tuple(sorted({spelled[label] for label in labels if label not in gone})) for labels in sets
    ]
    return made, decisions


def _in_strata_of(like: Table, table: Table, own: tuple[str, ...]) -> Table:
    """Given rows take the strata of the source, since both must have the same; they are not
    divided, so that a set of their own may stand anywhere."""
    at = {name: number for number, name in enumerate(like.classes)}
    places = [at.get(own[number], 0) for number in table.column("label").tolist()]
    names = table.rows.column_names
    rows = table.rows.remove_columns("label").add_column("label", places)
    return replace(table, rows=rows.select_columns(names), classes=like.classes)


def _sets(where: str, found: Gathered, separator: str | None) -> Sets:
    # Few sets stand in many rows: each is taken apart once.
    made: dict[str, tuple[str, ...]] = {}
    for row, cell in zip(found.rows.tolist(), found.written, strict=True):
        if cell not in made:
            parts = _parts(cell, separator)
            if parts is None:
                raise DataError(
                    f"{where}, row {row}",
                    "is no list of labels",
                    cell,
                    'Write a JSON list such as ["a", "b"], or say what stands between the labels: '
                    "--set data.label_separator='|'.",
                )
            made[cell] = parts
    return [made[cell] for cell in found.written]


def _parts(cell: str, separator: str | None) -> tuple[str, ...] | None:
    """The labels of one cell, sorted; ``None`` where it is no list, or a book of them."""
    if len(cell) > LABELS_CHARACTERS:
        return None
    parts = read_list(cell) if separator is None else cell.split(separator)
    return None if parts is None else tuple(sorted({part.strip() for part in parts} - {""}))


def _known(
    where: str, sets: Sets, found: Gathered, names: tuple[str, ...] | None
) -> tuple[str, ...]:
    if not sets:
        raise DataError(where, "holds no label at all", None, "Choose another with --label.")
    written = sort_classes(label for labels in sets for label in labels)
    if names is None:
        _check(where, written, len(sets))
        return written
    strange = set(written) - set(names)
    for row, labels in zip(found.rows.tolist(), sets, strict=True):
        for label in labels:
            if label in strange:
                raise refuse_unknown(f"{where}, row {row}", label, names)
    return names


def _check(where: str, names: tuple[str, ...], rows: int) -> None:
    if len(names) < 2:
        raise DataError(
            where,
            "holds fewer than two different labels",
            ", ".join(names),
            "Choose another column with --label, or train classes: --set data.label_kind=class.",
        )
    check_classes(where, len(names))
    refuse_long(where, names)
    if len(names) > max(20, rows / 2):
        raise DataError(
            where,
            f"holds {len(names)} different labels in {rows} rows: they look like free text",
            ", ".join(names[:3]),
            "Choose another column with --label.",
        )


def _few(sets: Sets, names: tuple[str, ...]) -> tuple[Finding, ...]:
    rows = Counter(label for labels in sets for label in labels)
    few = [name for name in names if rows[name] < FEW]
    if not few:
        return ()
    count = sum(rows[name] for name in few)
    shown = ", ".join(map(repr, few[:10])) + (", …" if len(few) > 10 else "")
    return (
        Finding(
            "rare_labels",
            "warn",
            count / len(sets),
            count,
            (),
            f"{len(few)} labels stand in fewer than {FEW} rows ({shown}): a side may lack "
            "them, and "
            "they can hardly be learned",
            "Add rows of these labels.",
        ),
    )
