"""Every check that has something to see."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from holdfast.core.errors import HoldfastError
from holdfast.core.records import Finding
from holdfast.data.table import Table
from holdfast.quality.check import CheckResult
from holdfast.quality.checks import all_checks
from holdfast.quality.views import TableRows, pixels_of

ORDER = {"error": 0, "warn": 1, "info": 2}


@dataclass(frozen=True, slots=True)
class AuditResults:
    """What a look through all checks gave: ``found`` the worst first, then by name; ``seconds`` of
    each check that ran; ``blind`` those that had no view or nothing to see in it, which is then
    said; ``idle`` those that mean nothing for the
    table; ``broken`` what those said that fell over."""

    found: tuple[CheckResult, ...]
    seconds: dict[str, float]
    blind: Mapping[str, str] = field(default_factory=dict)
    idle: tuple[str, ...] = ()
    broken: Mapping[str, str] = field(default_factory=dict)


def look(
    table: Table,
    views: Sequence[object],
    started: Callable[[str], None] = lambda _: None,
    *,
    go_on: bool = False,
) -> AuditResults:
    """Run every check that sees one of these views; ``started`` hears its name. An empty table has
    nothing to be seen. With ``go_on`` a check that falls over is named in ``broken`` and the others
    look all the same."""
    checks = all_checks().values() if len(table) else ()
    found, seconds, idle = [], {}, []
    blind: dict[str, str] = {}
    broken: dict[str, str] = {}
    for check in checks:
        seen = [view for view in views if isinstance(view, check.sees)]
        if not check.holds_for(table):
            idle.append(check.name)
        elif not any(check.nothing(view) == "" for view in seen):
            blind[check.name] = next((check.nothing(view) for view in seen), "")
        else:
            started(check.name)
            begun = time.perf_counter()
            try:
                found += [one for view in seen if (one := check(view)) is not None]
            except Exception as error:
                # What a user is told of is no defect, nor is a lack of memory.
                if not go_on or isinstance(error, (HoldfastError, MemoryError)):
                    raise
                broken[check.name] = f"{type(error).__name__}: {error}"
                continue
            seconds[check.name] = time.perf_counter() - begun
    ranked = sorted(found, key=lambda one: (ORDER[one.finding.severity], one.finding.check))
    return AuditResults(tuple(ranked), seconds, blind, tuple(idle), broken)


def audit_table(table: Table) -> tuple[Finding, ...]:
    """What the checks found that look at the table alone, and of images at the pixels of a sample.
    The table's own findings (missing values, rare classes) are not repeated."""
    rows = TableRows(table)
    pixels = [pixels_of(rows)] if "path" in table.rows.column_names else []
    return tuple(found.finding for found in look(table, [rows, *pixels]).found)
