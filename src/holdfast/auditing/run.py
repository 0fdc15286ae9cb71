"""Every check that has something to see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.auditing.check import Found
from holdfast.auditing.checks import all_checks
from holdfast.auditing.views import Rows
from holdfast.core.records import Finding
from holdfast.data.table import Table

_ORDER = {"error": 0, "warn": 1, "info": 2}


def run_checks(table: Table, views: Sequence[Any]) -> tuple[Found, ...]:
    """What the checks found that see one of these views, the worst first, then by name. Those that
    mean nothing for the table are left out. An empty table has none."""
    if not len(table):
        return ()
    found = [
        one
        for check in all_checks().values()
        if check.holds_for(table)
        for view in views
        if isinstance(view, check.sees) and (one := check(view)) is not None
    ]
    return tuple(sorted(found, key=lambda one: (_ORDER[one.finding.severity], one.finding.check)))


def audit_table(table: Table) -> tuple[Finding, ...]:
    """What the checks found that look at the table alone. The table's own findings (missing
    values, rare classes) are not repeated."""
    return tuple(found.finding for found in run_checks(table, [Rows(table)]))
