"""Every check that has something to see."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.auditing.check import Check, Found
from holdfast.auditing.checks import all_checks
from holdfast.auditing.views import Rows
from holdfast.core.records import Finding
from holdfast.data.table import Table

ORDER = {"error": 0, "warn": 1, "info": 2}


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look through all checks gave: ``found`` the worst first, then by name; ``seconds`` of
    each check that ran; ``blind`` those that had no view; ``idle`` those that mean nothing for the
    table."""

    found: tuple[Found, ...]
    seconds: dict[str, float]
    blind: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()


def look(
    table: Table, views: Sequence[Any], started: Callable[[str], None] = lambda _: None
) -> Looked:
    """Run every check that sees one of these views; ``started`` hears its name. An empty table has
    nothing to be seen."""
    checks = all_checks().values() if len(table) else ()
    found, seconds, blind, idle = [], {}, [], []
    for check in checks:
        seen = [view for view in views if isinstance(view, check.sees)]
        if not check.holds_for(table):
            idle.append(check.name)
        elif not seen:
            blind.append(check.name)
        else:
            started(check.name)
            begun = time.perf_counter()
            found += _all(check, seen)
            seconds[check.name] = time.perf_counter() - begun
    ranked = sorted(found, key=lambda one: (ORDER[one.finding.severity], one.finding.check))
    return Looked(tuple(ranked), seconds, tuple(blind), tuple(idle))


def _all(check: Check[Any], views: Sequence[Any]) -> list[Found]:
    return [one for view in views if (one := check(view)) is not None]


def run_checks(table: Table, views: Sequence[Any]) -> tuple[Found, ...]:
    """What the checks found that see one of these views, the worst first, then by name. Those that
    mean nothing for the table are left out. An empty table has none."""
    return look(table, views).found


def audit_table(table: Table) -> tuple[Finding, ...]:
    """What the checks found that look at the table alone. The table's own findings (missing
    values, rare classes) are not repeated."""
    return tuple(found.finding for found in run_checks(table, [Rows(table)]))
