"""Class names that look like one class written in two ways, or like a missing value."""

from __future__ import annotations

import re
from collections import defaultdict

from holdfast.core.records import Finding
from holdfast.core.wording import counted, have
from holdfast.data.labels.spelling import merged_spellings
from holdfast.quality.check import Check, add, with_classes
from holdfast.quality.rows import class_counts
from holdfast.quality.views import TableRows

_BETWEEN = re.compile(r"[\s_-]+")
_MISSING = {"nan", "null", "n/a", "#n/a", "<na>", "undefined"}


def label_variants(rows: TableRows) -> Finding | None:
    """Reports classes that differ only in case or in spaces, hyphens and underscores between
    letters, and spellings that were merged when the file was read. Numbers are left alone. Score:
    their share of the classes; 0 for what was merged."""
    table = rows.table
    groups: dict[str, list[str]] = defaultdict(list)
    for name in table.classes:
        # ``1`` and ``-1`` are two classes.
        if any(character.isalpha() for character in name):
            groups[_BETWEEN.sub(" ", name.casefold()).strip()].append(name)
    twice = [names for names in groups.values() if len(names) > 1]
    if not twice:
        return _merged(rows)
    same = {name for names in twice for name in names}
    counts = class_counts(table)
    count = sum(int(counts[n]) for n, name in enumerate(table.classes) if name in same)
    shown = "; ".join(" = ".join(map(repr, names)) for names in twice[:5])
    return Finding(
        "label_variants",
        "warn",
        len(same) / len(table.classes),
        count,
        (),
        f"classes that seem to be one written in several ways: {shown}",
        "Write each class in one way.",
    )


def _merged(rows: TableRows) -> Finding | None:
    merged = merged_spellings(rows.table.decisions)
    if merged is None:
        return None
    remedy = "Write each class in one way, so that other programs read the same classes."
    return Finding(
        "label_variants", "info", 0.0, merged.rows, (), merged.because, remedy, fixed=True
    )


def missing_as_class(rows: TableRows) -> Finding | None:
    """Reports classes named like a missing value (``nan``, ``null``, ``n/a``, ``<na>`` …). ``none``
    and ``NA`` are left alone, as they are often meant. Score: their share of the rows."""
    table = rows.table
    counts = class_counts(table)
    found = [n for n, name in enumerate(table.classes) if name.casefold() in _MISSING and counts[n]]
    if not found:
        return None
    count = int(counts[found].sum())
    shown = ", ".join(repr(table.classes[n]) for n in found)
    return Finding(
        "missing_as_class",
        "warn",
        count / len(table),
        count,
        (),
        f"{counted(count, 'row')} {have(count)} a class named like a missing value: {shown}",
        "Leave the cell empty where the label is not known.",
    )


add(
    Check(
        "label_variants",
        TableRows,
        label_variants,
        cannot_see="Classes that mean the same in other words.",
        error_rate="Accuses two classes that only case parts; none on CR, MR, TREC, BANKING77.",
        holds_for=with_classes,
    )
)
add(
    Check(
        "missing_as_class",
        TableRows,
        missing_as_class,
        cannot_see="Names of its own for an unknown label, such as 'other'.",
        error_rate="Accuses a class that is really called so; none on CR, MR, TREC, BANKING77.",
        holds_for=with_classes,
    )
)
