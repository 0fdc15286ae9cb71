"""From labels as written to classes: spelling, order, and what cannot be a label.

From the labels that a survey counted to classes, and an index for each label as written.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from holdfast.core.discovery import nearest
from holdfast.core.errors import DataError
from holdfast.core.records import Decision
from holdfast.data.labels.rare import RARE_BELOW, Rare, treat_rare
from holdfast.data.labels.spelling import Labels, match_spellings, merge_spellings, written
from holdfast.data.labels.survey import LabelSurvey
from holdfast.data.limits import NAME_CHARACTERS, check_classes
from holdfast.data.raw import Raw
from holdfast.data.table import Columns

_WHOLE = re.compile(r"[-+]?\d+\.0+")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_DIGITS = re.compile(r"(\d+)")
_MOST_SCORES = 20


def sort_classes(classes: Iterable[str]) -> tuple[str, ...]:
    """Classes in natural order: numbers by value, digits inside words by value.

    >>> sort_classes(["10", "9", "-1"]), sort_classes(["q10", "q9"])
    (('-1', '9', '10'), ('q9', 'q10'))
    """
    unique = set(classes)
    if all(_NUMBER.fullmatch(name) for name in unique):
        # By value, then as written: ``1`` and ``01`` are two classes in a fixed order.
        return tuple(sorted(unique, key=lambda name: (float(name), name)))
    return tuple(sorted(unique, key=_natural))


def _natural(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    pieces = _DIGITS.split(name)
    # Digits sort before words.
    key = tuple(_by_value(p) if p.isdecimal() else (1, 0, p) for p in pieces if p)
    return key, name


def _by_value(digits: str) -> tuple[int, int, str]:
    """A key that orders digits by value, however many: Python refuses a number of thousands."""
    plain = digits if digits.isascii() else "".join(str(unicodedata.decimal(d)) for d in digits)
    significant = plain.lstrip("0")
    return 0, len(significant), significant


def spellings(
    counts: Mapping[str, int], labels: Labels = "merged"
) -> tuple[dict[str, str], tuple[Decision, ...]]:
    """How each label as written is spelled as a class.

    ``1.0``, ``2.0`` become ``1``, ``2`` when every label is such a number (a table program writes
    whole numbers so when a cell is empty); the rest are merged as ``data/labels/spelling.py`` says,
    or with ``exact`` stay as they are.
    """
    whole, decisions = _whole_numbers(counts)
    if decisions or labels == "exact":
        return whole, decisions
    return merge_spellings(counts)


def _whole_numbers(counts: Mapping[str, int]) -> tuple[dict[str, str], tuple[Decision, ...]]:
    if not counts or not all(re.fullmatch(r"[-+]?\d+(\.0+)?", name) for name in counts):
        return {name: name for name in counts}, ()
    if not any(_WHOLE.fullmatch(name) for name in counts):
        return {name: name for name in counts}, ()
    because = "every label is a whole number written with a decimal point"
    shown = ", ".join(sorted(counts)[:5])
    return {name: name.partition(".")[0] for name in counts}, (
        Decision("labels", "whole numbers", f"{because} ({shown})"),
    )


def match_classes(
    counts: Iterable[str], classes: Sequence[str], labels: Labels = "merged"
) -> dict[str, str | None]:
    """The known class of each label as written, or ``None``: the same string, the same whole number
    (``1.0`` for ``1``), or the same but for case and space; with ``exact`` the last only where the
    classes are true and false."""
    counts = tuple(counts)
    merged = match_spellings(counts, classes) if labels == "merged" else {}
    known = {**merged, **{name: name for name in classes}}
    if {name.lower() for name in classes} == {"true", "false"}:
        known |= {spelled: name for name in classes for spelled in _cases(name)}
    return {name: known.get(name, known.get(_whole(name))) for name in counts}


def _cases(name: str) -> tuple[str, ...]:
    return (name.lower(), name.upper(), name.title())


def _whole(name: str) -> str:
    return name.partition(".")[0] if _WHOLE.fullmatch(name) else name


def refuse_unknown(where: str, label: str, classes: Sequence[str]) -> DataError:
    """A label that the model has never seen."""
    return DataError(
        where,
        "has a label that is not among the classes of the run",
        label,
        nearest(label, list(classes)),
    )


def check_labels(
    where: str, counts: Mapping[str, int], header: str | None, missing: Sequence[str] = ()
) -> None:
    """Refuse what cannot be classes: one value, identifiers, measurements; and a missing header,
    where the column's name comes from a first line (``header``). ``missing`` are the labels that
    were taken for none."""
    rows, distinct = sum(counts.values()), len(counts)
    if not rows:
        raise DataError(
            where,
            "holds no label at all: every row lacks its text or its label",
            None,
            "Choose another column with --label, or fill it.",
        )
    if header in counts:
        raise DataError(
            where,
            "is named like one of its own values: the header is missing or stands twice",
            header,
            "Name the columns on the first line, e.g. text,label, and only there.",
        )
    if distinct == 1:
        beside = f" beside {written(missing)}, which is taken for a missing label" * bool(missing)
        hint = " If that is a class, add --set data.labels=exact." * bool(missing)
        raise DataError(
            where,
            f"holds one class only{beside}, so there is nothing to tell apart",
            next(iter(counts)),
            f"Add rows of another class, or choose another column with --label.{hint}",
        )
    _refuse_many(where, counts, rows, distinct)
    check_classes(where, distinct)
    refuse_long(where, counts)


def refuse_long(where: str, names: Iterable[str]) -> None:
    """Refuse a class whose name is no name: it is told, drawn and kept as often as any other."""
    longest = max(names, key=len, default="")
    if len(longest) > NAME_CHARACTERS:
        raise DataError(
            where,
            f"holds a label of more than {NAME_CHARACTERS:,} characters: texts, not classes",
            longest[:40] + "…",
            "Choose the column of classes with --label.",
        )


def one_spelling(where: str, names: Sequence[str]) -> DataError:
    """Labels that are all one class once they are merged."""
    return DataError(
        where,
        "holds one class only, since these labels differ in case or space alone",
        ", ".join(names[:5]),
        "Add rows of another class, or keep them apart: --set data.labels=exact.",
    )


def _refuse_many(where: str, counts: Mapping[str, int], rows: int, distinct: int) -> None:
    numbers = all(_NUMBER.fullmatch(name) for name in counts)
    measured = numbers and any("." in name or "e" in name.lower() for name in counts)
    if not (distinct == rows or (distinct > rows / 2 and distinct > 20)) and not (
        measured and distinct > _MOST_SCORES
    ):
        return
    kind = "measurements (regression)" if numbers else "identifiers or free text"
    shown = ", ".join(sorted(counts)[:3])
    raise DataError(
        where,
        f"has {distinct} different values in {rows} rows: they look like {kind}",
        shown,
        "Choose the column of classes with --label"
        + (
            ", or learn the numbers themselves with --set data.label_kind=number."
            if numbers
            else "."
        ),
    )


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


def make_classes(raw: Raw, columns: Columns, seen: LabelSurvey, rules: ClassRules) -> Classes:
    """The classes of the source, or its labels in terms of the given ``classes``."""
    where = f"{raw.source}, column {columns.label!r}"
    if rules.classes is not None:
        classes = tuple(rules.classes)
        labels = rules.labels
        if rules.needed and not seen.counts:
            raise DataError(where, "holds no label at all", None, "Choose another with --label.")
        matched = match_classes(seen.counts, classes, labels)
        index: dict[str | None, int] = {name: n for n, name in enumerate(classes)}
        for label, name in matched.items():
            if name is None and rules.needed:
                row = _first_row(raw, columns, label)
                raise refuse_unknown(f"{where}, row {row}", label, classes)
        indices = {label: index.get(name, UNKNOWN) for label, name in matched.items()}
        return Classes(classes, indices, seen.counts)
    if columns.label is None:
        return Classes((), {}, seen.counts)
    if rules.needed:
        header = columns.label if raw.headed else None
        check_labels(where, seen.counts, header, columns.label_missing)
    return _found(where, seen, rules)


def _found(where: str, seen: LabelSurvey, rules: ClassRules) -> Classes:
    spelled, decisions = spellings(seen.counts, rules.labels)
    counts: Counter[str] = Counter()
    texts: dict[str, set[str]] = {}
    for label, name in spelled.items():
        counts[name] += seen.counts[label]
        texts.setdefault(name, set()).update(seen.texts.get(label, ()))
    if rules.needed and len(counts) == 1 < len(seen.counts):
        raise one_spelling(where, tuple(seen.counts))
    fates: dict[str, str | None] = {name: name for name in counts}
    small: tuple[str, ...] = ()
    if rules.needed:
        fates, small = treat_rare(where, counts, texts, rare=rules.rare, below=rules.rare_below)
    names = sort_classes(fate for fate in fates.values() if fate is not None)
    index: dict[str | None, int] = {name: n for n, name in enumerate(names)}
    indices = {label: index.get(fates[name], GONE) for label, name in spelled.items()}
    rare_as_written = tuple(label for label, name in spelled.items() if name in small)
    return Classes(names, indices, seen.counts, rare_as_written, rules.rare, decisions)


def _first_row(raw: Raw, columns: Columns, written: str) -> int:
    offset = 0
    for values in raw.table[columns.label].chunks:
        found = pc.index(pc.utf8_trim_whitespace(values), written).as_py()
        if found >= 0:
            return int(offset + found)
        offset += len(values)
    return offset
