"""Class names that look like one class written in two ways, or like a missing value."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace

from holdfast.core.wording import counted, have
from holdfast.data.labels.spelling import merged_spellings
from holdfast.quality.check import CheckResult, check, result, with_classes
from holdfast.quality.rows import class_counts
from holdfast.quality.views import TableRows

_BETWEEN = re.compile(r"[\s_-]+")
_MISSING = {"nan", "null", "n/a", "#n/a", "<na>", "undefined"}


@check(
    TableRows,
    cannot_see="Classes that mean the same in other words.",
    error_rate="Accuses two classes that only case parts; none on CR, MR, TREC, BANKING77.",
    holds_for=with_classes,
)
def label_variants(rows: TableRows) -> CheckResult | None:
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
        merged = merged_spellings(table.decisions)
        if merged is None:
            return None
        remedy = "Write each class in one way, so that other programs read the same classes."
        found = result((), merged.because, remedy, score=0.0, severity="info", count=merged.rows)
        return CheckResult(replace(found.finding, fixed=True))
    same = {name for names in twice for name in names}
    counts = class_counts(table)
    count = sum(int(counts[n]) for n, name in enumerate(table.classes) if name in same)
    shown = "; ".join(" = ".join(map(repr, names)) for names in twice[:5])
    return result(
        (),
        f"classes that seem to be one written in several ways: {shown}",
        "Write each class in one way.",
        score=len(same) / len(table.classes),
        count=count,
    )


@check(
    TableRows,
    cannot_see="Names of its own for an unknown label, such as 'other'.",
    error_rate="Accuses a class that is really called so; none on CR, MR, TREC, BANKING77.",
    holds_for=with_classes,
)
def missing_as_class(rows: TableRows) -> CheckResult | None:
    """Reports classes named like a missing value (``nan``, ``null``, ``n/a``, ``<na>`` …). ``none``
    and ``NA`` are left alone, as they are often meant. Score: their share of the rows."""
    table = rows.table
    counts = class_counts(table)
    found = [n for n, name in enumerate(table.classes) if name.casefold() in _MISSING and counts[n]]
    if not found:
        return None
    count = int(counts[found].sum())
    shown = ", ".join(repr(table.classes[n]) for n in found)
    return result(
        (),
        f"{counted(count, 'row')} {have(count)} a class named like a missing value: {shown}",
        "Leave the cell empty where the label is not known.",
        score=count / len(table),
        count=count,
    )
