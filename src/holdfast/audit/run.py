"""Every check over one table."""

from __future__ import annotations

from holdfast.audit.checks import all_checks
from holdfast.core.records import Finding
from holdfast.data.table import Table

_ORDER = {"error": 0, "warn": 1, "info": 2}


def audit_table(table: Table) -> tuple[Finding, ...]:
    """What the checks found, the worst first, then by name. The table's own findings (missing
    values, rare classes) are not repeated. An empty table has none."""
    if not len(table):
        return ()
    found = [finding for check in all_checks().values() if (finding := check(table)) is not None]
    return tuple(sorted(found, key=lambda finding: (_ORDER[finding.severity], finding.check)))
