"""From the labels that a survey counted to classes, and an index for each label as written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from holdfast.core.errors import DataError
from holdfast.core.records import Decision
from holdfast.data.labels import (
    check_labels,
    match_classes,
    one_spelling,
    refuse_unknown,
    sort_classes,
    spellings,
)
from holdfast.data.rare import Rare, treat_rare
from holdfast.data.raw import Raw
from holdfast.data.spelling import Labels
from holdfast.data.survey import Survey
from holdfast.data.table import Columns

UNKNOWN = -1
GONE = -2  # below UNKNOWN: what stays is told by a least index


@dataclass(frozen=True, slots=True)
class Classes:
    """``indices`` of each label as written: into ``classes``, or ``UNKNOWN``, or ``GONE`` where
    the row is dropped. ``small`` are the rare labels (as written) that were treated as ``rare``."""

    classes: tuple[str, ...]
    indices: dict[str, int]
    counts: Counter[str]
    small: tuple[str, ...] = ()
    rare: Rare = "refuse"
    decisions: tuple[Decision, ...] = ()


def make_classes(
    raw: Raw,
    columns: Columns,
    seen: Survey,
    *,
    classes: Sequence[str] | None,
    need_label: bool,
    rare: Rare,
    below: int,
    labels: Labels = "merged",
) -> Classes:
    """The classes of the source, or its labels in terms of the given ``classes``."""
    where = f"{raw.source}, column {columns.label!r}"
    if classes is not None:
        return _known(where, raw, columns, seen, tuple(classes), need_label, labels)
    if columns.label is None:
        return Classes((), {}, seen.counts)
    if need_label:
        header = columns.label if raw.headed else None
        check_labels(where, seen.counts, header, columns.label_missing)
    return _found(where, seen, need_label=need_label, rare=rare, below=below, labels=labels)


def _found(
    where: str, seen: Survey, *, need_label: bool, rare: Rare, below: int, labels: Labels
) -> Classes:
    spelled, decisions = spellings(seen.counts, labels)
    counts: Counter[str] = Counter()
    texts: dict[str, set[str]] = {}
    for written, name in spelled.items():
        counts[name] += seen.counts[written]
        texts.setdefault(name, set()).update(seen.texts.get(written, ()))
    if need_label and len(counts) == 1 < len(seen.counts):
        raise one_spelling(where, tuple(seen.counts))
    fates: dict[str, str | None] = {name: name for name in counts}
    small: tuple[str, ...] = ()
    if need_label:
        fates, small = treat_rare(where, counts, texts, rare=rare, below=below)
    names = sort_classes(fate for fate in fates.values() if fate is not None)
    index: dict[str | None, int] = {name: n for n, name in enumerate(names)}
    indices = {written: index.get(fates[name], GONE) for written, name in spelled.items()}
    rare_as_written = tuple(written for written, name in spelled.items() if name in small)
    return Classes(names, indices, seen.counts, rare_as_written, rare, decisions)


def _known(
    where: str,
    raw: Raw,
    columns: Columns,
    seen: Survey,
    classes: tuple[str, ...],
    need_label: bool,
    labels: Labels,
) -> Classes:
    if need_label and not seen.counts:
        raise DataError(where, "holds no label at all", None, "Choose another with --label.")
    matched = match_classes(seen.counts, classes, labels)
    index: dict[str | None, int] = {name: n for n, name in enumerate(classes)}
    for written, name in matched.items():
        if name is None and need_label:
            row = _first_row(raw, columns, written)
            raise refuse_unknown(f"{where}, row {row}", written, classes)
    indices = {written: index.get(name, UNKNOWN) for written, name in matched.items()}
    return Classes(classes, indices, seen.counts)


def _first_row(raw: Raw, columns: Columns, written: str) -> int:
    offset = 0
    for values in raw.table[columns.label].chunks:
        found = pc.index(pc.utf8_trim_whitespace(values), written).as_py()
        if found >= 0:
            return int(offset + found)
        offset += len(values)
    return offset
