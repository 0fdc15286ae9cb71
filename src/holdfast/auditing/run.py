"""Every check over one table."""

from __future__ import annotations

from holdfast.auditing.checks import all_checks
from holdfast.core.records import Finding
from holdfast.data.table import Table

# The checks that hold where a label is no class.
OF_TEXTS = ("wordless_texts",)
_ORDER = {"error": 0, "warn": 1, "info": 2}


def audit_table(table: Table) -> tuple[Finding, ...]:
    """What the checks found, the worst first, then by name. The table's own findings (missing
    values, rare classes) are not repeated. An empty table has none. Where a label is a
    number, or several, the checks of classes are left out."""
    if not len(table):
        return ()
    classes = table.columns.label_kind in (None, "class")
    checks = [check for name, check in all_checks().items() if classes or name in OF_TEXTS]
    found = [finding for check in checks if (finding := check(table)) is not None]
    return tuple(sorted(found, key=lambda finding: (_ORDER[finding.severity], finding.check)))
