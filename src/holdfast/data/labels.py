"""From labels as written to classes: spelling, order, and what cannot be a label."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from holdfast.core.discovery import nearest
from holdfast.core.errors import DataError
from holdfast.core.records import Decision
from holdfast.data.limits import NAME_CHARACTERS, check_classes
from holdfast.data.spelling import Labels, match_spellings, merge_spellings, written

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
    whole numbers so when a cell is empty); the rest are merged as ``data/spelling.py`` says, or
    with ``exact`` stay as they are.
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
