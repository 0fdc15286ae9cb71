"""From labels as written to classes: spelling, order, checks, and classes too small to split.

A stratified split into training, validation and test needs each class in every set, and duplicates
of a text always stay in one set. So a class needs as many *distinct* texts (after normalising) as
there are splits: three by default, ``rare_below``. Smaller classes are refused, dropped or merged.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from holdfast.core.decisions import notify
from holdfast.core.discovery import suggest_name
from holdfast.core.errors import DataError
from holdfast.core.records import Decision, Finding
from holdfast.core.wording import count_phrase, list_phrase
from holdfast.data.clean import LabelSurvey
from holdfast.data.labels.label_type import MAX_NUMERIC_CLASSES, NUMBER
from holdfast.data.labels.spelling import match_spellings, merge_spellings, quoted_list
from holdfast.data.limits import NAME_CHARACTERS, check_classes
from holdfast.data.options import LabelSpelling, RareClasses, RowOptions
from holdfast.data.raw import Raw
from holdfast.data.table import Columns

_INTEGER_AS_FLOAT = re.compile(r"[-+]?\d+\.0+")
_DIGITS = re.compile(r"(\d+)")


def sort_classes(classes: Iterable[str]) -> tuple[str, ...]:
    """Classes in natural order: numbers by value, digits inside words by value.

    >>> sort_classes(["10", "9", "-1"]), sort_classes(["q10", "q9"])
    (('-1', '9', '10'), ('q9', 'q10'))
    """
    unique = set(classes)
    if all(NUMBER.fullmatch(name) for name in unique):
        # By value, then as written: ``1`` and ``01`` are two classes in a fixed order.
        return tuple(sorted(unique, key=lambda name: (float(name), name)))
    return tuple(sorted(unique, key=_natural))


def _natural(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    pieces = _DIGITS.split(name)
    # Digits sort before words.
    key = tuple(_by_value(p) if p.isdecimal() else (1, 0, p) for p in pieces if p)
    return key, name


def _by_value(digits: str) -> tuple[int, int, str]:
    """A sort key for digits by value, of any length: Python refuses thousands of digits."""
    plain = digits if digits.isascii() else "".join(str(unicodedata.decimal(d)) for d in digits)
    significant = plain.lstrip("0")
    return 0, len(significant), significant


def class_spellings(counts: Mapping[str, int], labels: LabelSpelling = "merged") -> dict[str, str]:
    """The class of each label as written; the reason is logged.

    With ``exact`` labels are left unchanged. Else ``1.0``, ``2.0`` become ``1``, ``2`` when every
    label is such a number (table programs write integers this way when a cell is empty); other
    labels are merged as ``data/labels/spelling.py`` says.
    """
    if labels == "exact":
        return {name: name for name in counts}
    numbers = all(re.fullmatch(r"[-+]?\d+(\.0+)?", name) for name in counts)
    if numbers and any(_INTEGER_AS_FLOAT.fullmatch(name) for name in counts):
        because = "every label is a whole number, with or without a decimal point"
        notify(Decision("labels", "whole numbers", f"{because} ({', '.join(sorted(counts)[:5])})"))
        return {name: name.partition(".")[0] for name in counts}
    return merge_spellings(counts)


def match_classes(
    counts: Iterable[str], classes: Sequence[str], labels: LabelSpelling = "merged"
) -> dict[str, str | None]:
    """The known class of each label as written, or ``None``: the same string, the same integer
    (``1.0`` for ``1``), or the same but for case and space; with ``exact`` the last applies only
    where the classes are true and false."""
    counts = tuple(counts)
    merged = match_spellings(counts, classes) if labels == "merged" else {}
    known = {**merged, **{name: name for name in classes}}
    if {name.lower() for name in classes} == {"true", "false"}:
        known |= {
            spelled: name
            for name in classes
            for spelled in (name.lower(), name.upper(), name.title())
        }
    without_decimals = {
        name: name.partition(".")[0] for name in counts if _INTEGER_AS_FLOAT.fullmatch(name)
    }
    return {name: known.get(name, known.get(without_decimals.get(name, name))) for name in counts}


def unknown_label_error(where: str, label: str, classes: Sequence[str]) -> DataError:
    """The error for a label that is not one of the run's classes."""
    return DataError(
        where,
        "has a label that is not one of the classes of the run",
        label,
        suggest_name(label, list(classes)),
    )


def check_labels(
    where: str, counts: Mapping[str, int], header: str | None, missing: Sequence[str] = ()
) -> None:
    """Refuse labels that cannot be classes: a single value, identifiers, measurements. Also refuse
    a missing header, where the column's name comes from a first line (``header``). ``missing`` are
    the labels that were treated as missing."""
    rows, distinct = sum(counts.values()), len(counts)
    if not rows:
        rule = "has no labels: every row lacks its text or its label"
        raise DataError(where, rule, None, "Choose another column with --label, or add labels.")
    if header in counts:
        rule = "has a name that is also one of its values: the header is missing or repeated"
        remedy = "Name the columns on the first line, for example text,label, and only there."
        raise DataError(where, rule, header, remedy)
    if distinct == 1:
        missing_note = f" ({quoted_list(missing)} counts as a missing label)" * bool(missing)
        hint = " If that is a class, add --set data.labels=exact." * bool(missing)
        rule = f"has only one class{missing_note}, so there is nothing to learn"
        remedy = f"Add rows of another class, or choose another column with --label.{hint}"
        raise DataError(where, rule, next(iter(counts)), remedy)
    numbers = all(NUMBER.fullmatch(name) for name in counts)
    is_measurement = numbers and any("." in name or "e" in name.lower() for name in counts)
    is_identifier = distinct == rows or (distinct > rows / 2 and distinct > 20)
    if is_identifier or (is_measurement and distinct > MAX_NUMERIC_CLASSES):
        values_kind = "measurements (regression)" if numbers else "identifiers or free text"
        learn = ", or predict the numbers themselves with --set data.label_kind=number" * numbers
        rule = f"has {distinct} distinct values in {rows} rows: they look like {values_kind}"
        remedy = f"Choose the column of classes with --label{learn}."
        raise DataError(where, rule, ", ".join(sorted(counts)[:3]), remedy)
    check_classes(where, distinct)
    refuse_long_names(where, counts)


def refuse_long_names(where: str, names: Iterable[str]) -> None:
    """Refuse a class with a very long name: names are printed, drawn and stored many times."""
    longest = max(names, key=len, default="")
    if len(longest) > NAME_CHARACTERS:
        rule = f"has a label of more than {NAME_CHARACTERS:,} characters: texts, not classes"
        remedy = "Choose the column of classes with --label."
        raise DataError(where, rule, longest[:40] + "…", remedy)


UNKNOWN = -1
DROPPED = -2  # below UNKNOWN: rows to keep have at least a given index


@dataclass(frozen=True, slots=True)
class Classes:
    """``indices`` of each label as written: into ``classes``, or ``UNKNOWN``, or ``DROPPED`` where
    the row is dropped. ``rare_labels`` are the rare labels (as written) that were handled as
    ``rare_option`` says."""

    classes: tuple[str, ...]
    indices: dict[str, int]
    counts: Counter[str]
    rare_labels: tuple[str, ...] = ()
    rare_option: RareClasses = "refuse"


def make_classes(raw: Raw, columns: Columns, surveyed: LabelSurvey, options: RowOptions) -> Classes:
    """The classes of the source, or its labels as indices into the given ``classes``."""
    where = f"{raw.source}, column {columns.label!r}"
    if options.classes is not None:
        classes, needed = tuple(options.classes), options.need_label
        if needed and not surveyed.counts:
            raise DataError(where, "has no labels", None, "Choose another column with --label.")
        matched = match_classes(surveyed.counts, classes, options.labels)
        for label, name in matched.items():
            if name is None and needed:
                row = _first_row(raw, columns, label)
                raise unknown_label_error(f"{where}, row {row}", label, classes)
        index: dict[str | None, int] = {name: n for n, name in enumerate(classes)}
        indices = {label: index.get(name, UNKNOWN) for label, name in matched.items()}
        return Classes(classes, indices, surveyed.counts)
    if columns.label is None:
        return Classes((), {}, surveyed.counts)
    if options.need_label:
        header = columns.label if raw.has_header else None
        check_labels(where, surveyed.counts, header, columns.label_missing)
    return _classes_from_labels(where, surveyed, options)


def _classes_from_labels(where: str, surveyed: LabelSurvey, options: RowOptions) -> Classes:
    """The classes that the labels of the source form."""
    spelled = class_spellings(surveyed.counts, options.labels)
    counts: Counter[str] = Counter()
    texts: dict[str, set[str]] = {}
    for label, name in spelled.items():
        counts[name] += surveyed.counts[label]
        texts.setdefault(name, set()).update(surveyed.texts.get(label, ()))
    fates: dict[str, str | None] = {name: name for name in counts}
    small: tuple[str, ...] = ()
    if options.need_label:
        if len(counts) == 1 < len(surveyed.counts):
            raise DataError(
                where,
                "has only one class, since these labels differ only in case or space",
                ", ".join(tuple(surveyed.counts)[:5]),
                "Add rows of another class, or keep the labels separate: --set data.labels=exact.",
            )
        fates, small = resolve_rare(
            where, counts, texts, rare=options.rare, below=options.rare_below
        )
    names = sort_classes(fate for fate in fates.values() if fate is not None)
    index: dict[str | None, int] = {name: n for n, name in enumerate(names)}
    indices = {label: index.get(fates[name], DROPPED) for label, name in spelled.items()}
    rare_as_written = tuple(label for label, name in spelled.items() if name in small)
    return Classes(names, indices, surveyed.counts, rare_as_written, options.rare)


def _first_row(raw: Raw, columns: Columns, written: str) -> int:
    offset = 0
    for values in raw.table[columns.label].chunks:
        position = pc.index(pc.utf8_trim_whitespace(values), written).as_py()
        if position >= 0:
            return int(offset + position)
        offset += len(values)
    return offset


OTHER = "other"


def resolve_rare(
    where: str,
    counts: Mapping[str, int],
    texts: Mapping[str, set[str]],
    *,
    rare: RareClasses,
    below: int,
) -> tuple[dict[str, str | None], tuple[str, ...]]:
    """The outcome for each class: its name, ``"other"``, or ``None`` (its rows are dropped); and
    the rare classes. ``counts`` and ``texts`` are by class; a class is rare with fewer than
    ``below`` texts."""
    small = tuple(name for name in counts if len(texts.get(name, ())) < below)
    if not small:
        return {name: name for name in counts}, ()
    if rare == "refuse":
        raise _too_small_error(where, counts, texts, small, below)
    becomes = dict.fromkeys(small, None if rare == "drop" else OTHER)
    fates = {name: becomes.get(name, name) for name in counts}
    merged = {text for name, fate in fates.items() if fate == OTHER for text in texts.get(name, ())}
    if OTHER in fates.values() and len(merged) < below:
        raise DataError(
            where,
            f"still has a class too small to split after merging: {OTHER!r}",
            count_phrase(len(merged), "distinct text"),
            "Use --set data.rare_classes=drop, or add rows."
            if len({fate for fate in fates.values() if fate not in (None, OTHER)}) > 1
            else "Add rows.",
        )
    if len({fate for fate in fates.values() if fate is not None}) < 2:
        remedy = (
            f"Each needs {below} distinct texts: add rows, or choose another column with --label."
        )
        raise DataError(where, "has fewer than two classes large enough to split", None, remedy)
    return fates, small


def _too_small_error(
    where: str,
    counts: Mapping[str, int],
    texts: Mapping[str, set[str]],
    small: tuple[str, ...],
    below: int,
) -> DataError:
    class_sizes = [
        f"{name!r}: {_row_count_phrase(counts[name], len(texts[name]))}" for name in small
    ]
    shown = list_phrase(class_sizes, 5, ", ", " and {} more")
    return DataError(
        where,
        f"has classes too small to split ({shown}); each needs {below} distinct texts",
        None,
        "Correct misspelt labels; else add rows, or use --set data.rare_classes=drop (drop their "
        f"rows) or --set data.rare_classes=merge (merge them into the class {OTHER!r}).",
    )


def _row_count_phrase(rows: int, distinct: int) -> str:
    plural = "s" if rows > 1 else ""
    return f"{rows} row{plural}" if rows == distinct else f"{rows} row{plural}, {distinct} distinct"


def report_rare(
    small: tuple[str, ...], counts: Counter[str], rows: list[int], rare: RareClasses
) -> None:
    """Log how the small classes were handled. ``rows`` are the first of their rows."""
    count = sum(counts[name] for name in small)
    done = "dropped" if rare == "drop" else f"merged into {OTHER!r}"
    shown = list_phrase([*map(repr, small)], 10, ", ", ", …")
    share = count / max(1, sum(counts.values()))
    because = (
        f"{len(small)} class{'es' if len(small) > 1 else ''} too small to split "
        f"({shown}; {count} rows) {'were' if len(small) > 1 else 'was'} {done}"
    )
    remedy = "Add rows of these classes."
    notify(Finding("rare_classes", "warn", share, count, tuple(rows), because, remedy, True))
