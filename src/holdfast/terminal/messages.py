"""Messages before and during a run: on standard error only, 80 columns without a terminal."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from holdfast.core.printable import printable
from holdfast.core.records import Decision, Finding
from holdfast.core.wording import count_phrase, has_or_have
from holdfast.terminal.colour import coloured
from holdfast.terminal.layout import entries, number, short_count, width, wrap
from holdfast.terminal.streams import notify

if TYPE_CHECKING:
    from holdfast.runs.start import ModelOutline, Outline, RowsOutline

MARKS = {"error": "!!", "warn": "! "}


class MessagePrinter:
    """Prints each decision and finding with its reason; without ``verbose``, only the outline of
    the run and the findings that the user must act on.

    The run's ``events.jsonl`` and its report hold everything that is not printed.
    """

    def __init__(self, quiet: bool, verbose: bool = True) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._outline_printed = False
        self._open_findings: list[Finding] = []

    def __call__(self, item: Decision | Finding) -> None:
        if not self._verbose:
            if isinstance(item, Decision) and not item.prominent:
                return
            if isinstance(item, Finding) and not needs_attention(item):
                return
            if isinstance(item, Finding) and not self._outline_printed:
                self._open_findings.append(item)
                return
        if isinstance(item, Decision):
            self.line(f"{item.what}: {item.chosen}", item.because)
        else:
            mark = MARKS.get(item.severity, "  ")
            self.line(f"{mark}{item.check}: {item.count}", f"{item.because} → {item.remedy}")

    def outline(self, part: Outline) -> None:
        """Print a part of the run's outline as soon as it is known."""
        if self._quiet:
            return
        from holdfast.runs.start import RowsOutline

        if isinstance(part, RowsOutline):
            lines = row_lines(part, width())
        else:
            lines = [*model_lines(part, width()), *finding_lines(self._open_findings, width())]
            self._outline_printed = True
        self._write(printable("\n".join(lines)))

    def line(self, head: str, because: str = "") -> None:
        """Print one entry, wrapped, with its reason indented."""
        if self._quiet:
            return
        text = printable(f"  {head} — {because}" if because else f"  {head}")
        self._write("\n".join(wrap(text, width(), "", " " * 6)))

    def _write(self, text: str) -> None:
        notify(coloured(text, sys.stderr) + "\n")

    def title(self, text: str) -> None:
        """Print the first line of a command."""
        if not self._quiet:
            notify(f"{printable(text)}\n")


def report_missing_predictions(
    empty: int, below_threshold: int, cut: int, rows: int, quiet: bool
) -> None:
    """Report in one line each that there are no rows, how many have no text, how many predictions
    are below the threshold, and how many generated texts were cut."""
    if quiet:
        return
    if not rows:
        notify("  The data has no rows, so nothing was predicted.\n")
    verb = "is" if below_threshold == 1 else "are"
    cut_verb = "was" if cut == 1 else "were"
    for n, noun, rest in (
        (
            empty,
            "row",
            f"{has_or_have(empty)} no text or readable image: their prediction is empty",
        ),
        (
            below_threshold,
            "row",
            f"{verb} below the run's threshold: no prediction; ask an annotator",
        ),
        (
            cut,
            "text",
            f"{cut_verb} cut before the end (marked cut): allow more with --max-tokens N",
        ),
    ):
        if n:
            notify(f"  {n:,} of {count_phrase(rows, noun)} {rest}\n")


def needs_attention(finding: Finding) -> bool:
    """Whether the user must act: a warning or an error that was not fixed."""
    return finding.severity in MARKS and not finding.fixed


def row_lines(part: RowsOutline, columns: int) -> list[str]:
    """The rows and their columns, and the split with the rows that were moved or removed."""
    columns_read = ", ".join(f'"{name}"' for name in part.text)
    if part.label and columns_read:
        columns_read += f' → "{part.label}"'
    rows_read = ": ".join(filter(None, [f"{part.rows:,} of {part.source}", columns_read]))
    rows = f"{rows_read} ({part.answers})" if part.answers else rows_read
    rows += f" by {part.group}" if part.group else ""
    reason = "their duplicates or group" if part.group else "their duplicates"
    notes = [f"{part.moved:,} moved to the split of {reason}"] if part.moved else []
    why = f" ({part.why_dropped})" if part.why_dropped else ""
    notes += [f"{part.dropped:,} removed{why}"] if part.dropped else []
    sizes = f"training {part.train:,}, validation {part.valid:,}, test {part.test:,}"
    if part.folded:
        both = part.train + part.valid
        sizes = f"training and validation {both:,} (cross-fitting), test {part.test:,}"
    return entries([("Rows", rows), ("Split", "; ".join([sizes, *notes]))], columns)


def model_lines(part: ModelOutline, columns: int) -> list[str]:
    """The trainable parameters, and the plan in numbers."""
    total = short_count(part.parameters)
    share = "all" if part.learning == part.parameters else f"{short_count(part.learning)} of"
    learning = f"{share} {total} parameters trained"
    phases = f" in {part.phases} phases" if part.phases > 1 else ""
    steps = f"{count_phrase(part.steps, 'step')}{phases} of {count_phrase(part.rows_a_step, 'row')}"
    amount = number(part.epochs) if part.epochs >= 0.1 else f"{part.epochs:.1g}"
    epochs = f"{amount} {'epoch' if part.epochs == 1 else 'epochs'}"
    evaluations = count_phrase(part.looks, "evaluation")
    model, plan = f"{part.name}, {part.task}: {learning}", f"{steps} ({epochs}), {evaluations}"
    return entries([("Model", model), ("Plan", plan)], columns)


def finding_lines(findings: Sequence[Finding], columns: int) -> list[str]:
    """Two lines of findings, the worst first: one finding in two lines; two findings in one line
    each; of more, the first one and the names of the others."""
    ranked = sorted(findings, key=lambda f: (f.severity != "error", -f.score))
    if not ranked:
        return []
    if len(ranked) == 1:
        return _wrap_finding(ranked[0], columns, 2)
    if len(ranked) == 2:
        return [line for finding in ranked for line in _wrap_finding(finding, columns, 1)]
    others = ", ".join(finding.check for finding in ranked[1:])
    more = f"  !  and {len(ranked) - 1} more: {others} (--verbose, report)"
    return [
        *_wrap_finding(ranked[0], columns, 1),
        textwrap.shorten(more, columns - 2, placeholder=" …"),
    ]


def _wrap_finding(finding: Finding, columns: int, max_lines: int) -> list[str]:
    text = f"{finding.check}: {finding.because}"
    if not finding.remedy.startswith("No action"):
        text += f" → {finding.remedy}"
    return wrap(text, columns, f"  {MARKS[finding.severity]:<3}", " " * 5, max_lines=max_lines)
