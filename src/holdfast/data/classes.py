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
from holdfast.data.rare import RARE_BELOW, Rare, treat_rare
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


@dataclass(frozen=True, slots=True)
class ClassRules:
    """How labels become classes.

    ``classes`` are those of a run: other labels are refused; without them, all labels found. With
    ``needed`` false the label column may be absent, and a row whose label is missing or unknown
    stays, with label -1. ``rare`` says what to do with a class of fewer than ``rare_below``
    distinct texts (see ``rare.py``); it is not asked where classes are given or not needed.
    ``labels`` is ``merged`` or ``exact`` (see ``spelling.py``).
    """

    classes: Sequence[str] | None = None
    needed: bool = True
    rare: Rare = "refuse"
    rare_below: int = RARE_BELOW
    labels: Labels = "merged"


def make_classes(raw: Raw, columns: Columns, seen: Survey, rules: ClassRules) -> Classes:
    """The classes of the source, or its labels in terms of the given ``classes``."""
    where = f"{raw.source}, column {columns.label!r}"
    if rules.classes is not None:
        return _known(where, raw, columns, seen, tuple(rules.classes), rules.needed, rules.labels)
    if columns.label is None:
        return Classes((), {}, seen.counts)
    if rules.needed:
        header = columns.label if raw.headed else None
        check_labels(where, seen.counts, header, columns.label_missing)
    return _found(where, seen, rules)


def _found(where: str, seen: Survey, rules: ClassRules) -> Classes:
    spelled, decisions = spellings(seen.counts, rules.labels)
    counts: Counter[str] = Counter()
    texts: dict[str, set[str]] = {}
    for written, name in spelled.items():
        counts[name] += seen.counts[written]
        texts.setdefault(name, set()).update(seen.texts.get(written, ()))
    if rules.needed and len(counts) == 1 < len(seen.counts):
        raise one_spelling(where, tuple(seen.counts))
    fates: dict[str, str | None] = {name: name for name in counts}
    small: tuple[str, ...] = ()
    if rules.needed:
        fates, small = treat_rare(where, counts, texts, rare=rules.rare, below=rules.rare_below)
    names = sort_classes(fate for fate in fates.values() if fate is not None)
    index: dict[str | None, int] = {name: n for n, name in enumerate(names)}
    indices = {written: index.get(fates[name], GONE) for written, name in spelled.items()}
    rare_as_written = tuple(written for written, name in spelled.items() if name in small)
    return Classes(names, indices, seen.counts, rare_as_written, rules.rare, decisions)


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
