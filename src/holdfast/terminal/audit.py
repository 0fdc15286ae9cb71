"""An audit with a person watching: what was decided, and what goes on."""

from __future__ import annotations

from holdfast.analyses.audit.audit import AuditRequest, audit
from holdfast.analyses.audit.result import Audit
from holdfast.core.decisions import decisions_to
from holdfast.core.records import Decision, Finding
from holdfast.terminal.progress_line import ProgressLine
from holdfast.terminal.say import Teller


def audit_watched(asked: AuditRequest, *, quiet: bool = False) -> Audit:
    """Do what ``asked`` says."""
    teller, line = Teller(quiet), ProgressLine(quiet)
    teller.title(f"holdfast audit {asked.names.get(asked.data, asked.data)}")

    def tell(decision: Decision | Finding) -> None:
        line.close()
        teller(decision)

    try:
        recipe = asked.recipe()
        with decisions_to(tell):
            return audit(recipe, asked.against, progress=line, names=asked.names)
    finally:
        line.close()
