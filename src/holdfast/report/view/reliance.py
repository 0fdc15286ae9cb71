"""The list "Before you rely on it": the most serious faults of the model, at most five lines, each
with a link to its section.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from holdfast.report.contents import report_sections
from holdfast.report.numbers import sentence
from holdfast.report.run_files import RunFiles
from holdfast.report.section import CLEAN, UNDECIDED

MAX_LINES = 5


@dataclass(frozen=True, slots=True)
class RelianceLine:
    """A fault (``tone`` is ``warn``) or a way to use the model (``info``): the ``section`` with the
    details, and the ``text``, a sentence."""

    section: str
    tone: str
    text: str


@dataclass(frozen=True, slots=True)
class Reliance:
    """``lines``, the most serious first; ``rest`` names in one line the faults that were tested for
    and not found, and the tests that were inconclusive."""

    lines: tuple[RelianceLine, ...]
    rest: str


def reliance(run: RunFiles, shown: Collection[str] | None = None) -> Reliance | None:
    """From the blocks of ``result.json``; with ``shown`` only from those whose sections are on the
    page. ``None`` where a run has none of them (older versions)."""
    checks = {one.key: one.reliance for one in report_sections() if one.reliance}
    findings = [
        (section, check, finding)
        for section, check in sorted(checks.items(), key=lambda one: one[1].rank)
        if (shown is None or section in shown) and (finding := check.find(run)) is not None
    ]
    if not findings:
        return None
    clean = [check.looked_for for _, check, finding in findings if finding == CLEAN]
    undecided = [check.looked_for for _, check, finding in findings if finding == UNDECIDED]
    lines = [
        RelianceLine(section, "info" if check.is_use else "warn", sentence(finding))
        for section, check, finding in findings
        if finding not in (CLEAN, UNDECIDED)
    ]
    faults = [line for line in lines if line.tone == "warn"]
    use = [line for line in lines if line.tone == "info"][:1]
    shown_faults = faults[: MAX_LINES - len(use)]
    rest = []
    if left := len(faults) - len(shown_faults):
        rest.append(f"{left} more in the sections below.")
    if clean:
        opening = "Also tested and not found" if faults else "Tested and not found"
        rest.append(f"{opening}: {', '.join(clean)}.")
    if undecided:
        rest.append(f"Inconclusive, because of too few rows: {', '.join(undecided)}.")
    return Reliance((*shown_faults, *use), " ".join(rest))
