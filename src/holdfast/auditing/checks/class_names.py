"""Class names that look like one class written in two ways, or like a missing value."""

from __future__ import annotations

import re
from collections import defaultdict

from holdfast.auditing.checks import CHECKS
from holdfast.auditing.rows import class_counts
from holdfast.core.records import Finding
from holdfast.core.wording import counted, have
from holdfast.data.table import Table

_BETWEEN = re.compile(r"[\s_-]+")
_MISSING = {"nan", "null", "n/a", "#n/a", "<na>", "undefined"}


def label_variants(table: Table) -> Finding | None:
    """Reports classes that differ only in case or in spaces, hyphens and underscores between
    letters. Numbers are left alone. Score: their share of the classes."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in table.classes:
        # ``1`` and ``-1`` are two classes.
        if any(character.isalpha() for character in name):
            groups[_BETWEEN.sub(" ", name.casefold()).strip()].append(name)
    twice = [names for names in groups.values() if len(names) > 1]
    if not twice:
        return None
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


def missing_as_class(table: Table) -> Finding | None:
    """Reports classes named like a missing value (``nan``, ``null``, ``n/a``, ``<na>`` …). ``none``
    and ``NA`` are left alone, as they are often meant. Score: their share of the rows."""
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


CHECKS.add("label_variants", label_variants)
CHECKS.add("missing_as_class", missing_as_class)
