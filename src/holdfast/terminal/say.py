"""What a person reads before and while a run goes on: standard error only, 80 columns without a
terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from holdfast.core.printable import printable
from holdfast.core.records import Decision, Finding
from holdfast.core.wording import count_phrase, has_or_have
from holdfast.terminal.layout import entries, in_unit, millions, number, width, wrapped
from holdfast.terminal.streams import notify

if TYPE_CHECKING:
    from holdfast.runs.start import ModelOutline, Outline, RowsOutline

MARKS = {"error": "!!", "warn": "! "}


class Teller:
    """Prints decisions and findings as they are made, each with its reason; or, where ``verbose``
    is false, the outline of the run alone, with the findings that need a person.

    Everything that is not printed stands in the run's ``events.jsonl`` and report.
    """

    def __init__(self, quiet: bool, verbose: bool = True) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._begun = False
        self._open: list[Finding] = []

    def __call__(self, item: Decision | Finding) -> None:
        if not (self._verbose or self._begun):
            if isinstance(item, Finding):
                self._open += [item] if needs_person(item) else []
                return
            if not item.prominent:
                return
        if isinstance(item, Decision):
            self.line(f"{item.what}: {item.chosen}", item.because)
        else:
            mark = MARKS.get(item.severity, "  ")
            self.line(f"{mark}{item.check}: {item.count}", f"{item.because} → {item.remedy}")

    def outline(self, part: Outline) -> None:
        """A part of the run's outline, as soon as it stands."""
        if self._quiet:
            return
        from holdfast.runs.start import RowsOutline

        if isinstance(part, RowsOutline):
            lines = rows_lines(part, width())
        else:
            lines = [*model_lines(part, width()), *finding_lines(self._open, width())]
            self._begun = True
        notify(printable("\n".join(lines)) + "\n")

    def line(self, head: str, because: str = "") -> None:
        """One entry, wrapped, its reason indented."""
        if self._quiet:
            return
        text = printable(f"  {head} — {because}" if because else f"  {head}")
        notify("\n".join(wrapped(text, width(), "", " " * 6)) + "\n")

    def title(self, text: str) -> None:
        """The first line of a command."""
        if not self._quiet:
            notify(f"{printable(text)}\n")


def tell_unanswered(empty: int, below: int, cut: int, rows: int, quiet: bool) -> None:
    """A line each, if there are any: how many rows have nothing to read, how many a threshold
    leaves to a person, and how many answers were stopped before they had ended."""
    if quiet:
        return
    verb = "is" if below == 1 else "are"
    stopped = "was" if cut == 1 else "were"
    for n, what, rest in (
        (empty, "row", f"{has_or_have(empty)} nothing to read: no prediction there"),
        (below, "row", f"{verb} below the run's threshold: no prediction there, ask an annotator"),
        (
            cut,
            "answer",
            f"{stopped} stopped before the end (marked cut): allow more with --max-tokens N",
        ),
    ):
        if n:
            notify(f"  {n:,} of {count_phrase(rows, what)} {rest}\n")


def needs_person(finding: Finding) -> bool:
    """Whether somebody must decide something: a warning or an error that was not treated."""
    return finding.severity in MARKS and not finding.fixed


def rows_lines(part: RowsOutline, columns: int) -> list[str]:
    """The rows and their columns, and the division with what was moved."""
    read = ", ".join(f'"{name}"' for name in part.text)
    if part.label and read:
        read += f' → "{part.label}"'
    rows_read = ": ".join(filter(None, [f"{part.rows:,} of {part.source}", read]))
    rows = f"{rows_read} ({part.answers})" if part.answers else rows_read
    rows += f" by {part.group}" if part.group else ""
    aside = [f"{part.moved:,} moved to their copies"] if part.moved else []
    if part.moved and part.group:
        aside = [f"{part.moved:,} moved to copies or group"]
    why = f" ({part.why_dropped})" if part.why_dropped else ""
    aside += [f"{part.dropped:,} dropped{why}"] if part.dropped else []
    sizes = f"train {part.train:,}, validation {part.valid:,}, test {part.test:,}"
    if part.folded:
        sizes = f"{part.train + part.valid:,} in folds, test {part.test:,}"
    division = "; ".join([sizes, ", ".join(aside) or "no copies to move"])
    return entries([("Rows", rows), ("Division", division)], columns)


def model_lines(part: ModelOutline, columns: int) -> list[str]:
    """What learns, and the plan in numbers."""
    learns = f"{_of(part.learning, part.parameters)} parameters learn"
    phases = f" in {part.phases} phases" if part.phases > 1 else ""
    steps = f"{count_phrase(part.steps, 'step')}{phases} of {count_phrase(part.rows_a_step, 'row')}"
    epochs = f"{number(part.epochs)} {'epoch' if part.epochs == 1 else 'epochs'}"
    looks = count_phrase(part.looks, "evaluation")
    model, plan = f"{part.name}, {part.task}: {learns}", f"{steps} ({epochs}), {looks}"
    return entries([("Model", model), ("Plan", plan)], columns)


def _of(part: int, whole: int) -> str:
    """``10.8 of 22.6 million``, ``all 22.6 million``."""
    if part == whole:
        return f"all {millions(whole)}"
    (some, some_unit), (_, unit) = in_unit(part), in_unit(whole)
    return f"{some if some_unit == unit else millions(part)} of {millions(whole)}"


def finding_lines(findings: Sequence[Finding], columns: int) -> list[str]:
    """Two lines for what needs a person: one finding in two, two in one each, of more the first
    and the names of the others. The worst stand first."""
    ranked = sorted(findings, key=lambda f: (f.severity != "error", -f.score))
    if not ranked:
        return []
    if len(ranked) == 1:
        return _finding(ranked[0], columns, 2)
    if len(ranked) == 2:
        return [line for finding in ranked for line in _finding(finding, columns, 1)]
    others = ", ".join(finding.check for finding in ranked[1:])
    more = f"  !  and {len(ranked) - 1} more: {others} (--verbose, report)"
    return [*_finding(ranked[0], columns, 1), textwrap.shorten(more, columns - 2, placeholder=" …")]


def _finding(finding: Finding, columns: int, most: int) -> list[str]:
    text = f"{finding.check}: {finding.because} → {finding.remedy}"
    return wrapped(text, columns, f"  {MARKS[finding.severity]:<3}", " " * 5, max_lines=most)
