"""``holdfast audit``: check a data set for problems before training on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import Force, Output, check_known, exit_on_request, set_option
from holdfast.core.errors import Defect, RunError
from holdfast.core.printable import printable, shorten
from holdfast.core.wording import ROW_NUMBERS, SEVERITY_TITLES, count_phrase
from holdfast.terminal.layout import width, wrap
from holdfast.terminal.streams import json_text

if TYPE_CHECKING:
    from holdfast.analyses.audit.audit import Audit, AuditRequest, LabelQueue, ShownRow
    from holdfast.analyses.audit.fix import FixResult
    from holdfast.core.outputs import OutputFile
    from holdfast.core.records import Finding

# The severities that a value of --fail-on stands for.
FAILING = {"warn": ("warn", "error"), "error": ("error",)}
SEVERITY_MARKS = {"error": "!!", "warn": "! ", "info": "  "}
# Examples of a finding in the terminal; the page has more.
MAX_EXAMPLES = 2
MAX_CHARACTERS = 160
# Rows to label next; --json lists the others.
MAX_ROWS_TO_LABEL = 3


@dataclass(frozen=True, slots=True)
class AuditRowOptions:
    """The rows to check, and files that they must not overlap with."""

    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A data file, a folder of images, a hub data set, a recipe, or a finished run.",
        ),
    ]
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="Rows that must not be in DATA, e.g. the test rows; repeatable."
        ),
    ] = None
    text: Annotated[
        list[str] | None, typer.Option(help="The text column; give it twice for pairs of texts.")
    ] = None
    label: Annotated[str | None, typer.Option(help="The label column.")] = None
    group: Annotated[
        str | None, typer.Option(help="A column of groups whose rows belong together.")
    ] = None
    set_: Annotated[list[str] | None, set_option("Set a key of the recipe, e.g. audit.rows=0.")] = (
        None
    )


@dataclass(frozen=True, slots=True)
class AuditWork:
    """Output files, and the engine of the duplicate search."""

    fix: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT", help="Write a cleaned copy of DATA to OUT, and OUT.changes.jsonl."
        ),
    ] = None
    engine: Annotated[
        str | None,
        typer.Option(metavar="local|ray", help="Search for duplicates on this machine or on Ray."),
    ] = None
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a report with examples to FILE.")
    ] = None
    force: Force = False
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SEVERITY|CHECK",
            help="Exit 3 on a finding of this severity (warn: also error) or check; repeatable.",
        ),
    ] = None


def command(rows: AuditRowOptions, work: AuditWork, output: Output) -> None:
    """Check DATA for duplicates, leakage, wrong labels, damaged texts and bias.

    DATA is not changed, and no row leaves this machine (except with --engine ray on a cluster).
    --fix writes a new file.
    """
    from holdfast.data.source import refuse_missing

    for name in (rows.data, *(rows.against or ())):
        refuse_missing(name)
    from holdfast.analyses.audit.audit import AuditRequest
    from holdfast.terminal.watch import audit_with_progress

    if work.fail_on:
        # Only then: listing the checks imports them all.
        from holdfast.quality.checks import all_checks
        from holdfast.quality.tokens import CHECKS as TOKEN_CHECKS

        known = (*FAILING, *all_checks(), *(one.name for one in TOKEN_CHECKS))
        check_known(work.fail_on, "--fail-on", "severity or check", known)
    if work.engine:
        from holdfast.search.learner import ENGINES

        check_known([work.engine], "--engine", "known engine", ENGINES)
    settings = (*(rows.set_ or ()), *((f"audit.engine={work.engine}",) if work.engine else ()))
    against = tuple(rows.against or ())
    request = AuditRequest(rows.data, against, rows.text, rows.label, rows.group, settings)
    page = _check_outputs(request, work)
    audit = audit_with_progress(request, quiet=output.quiet)
    if page is not None:
        _write(page, audit)
    if output.as_json:
        fixed = {} if work.fix is None else {"fixed": _fix(request, audit, work).to_json()}
        typer.echo(json_text({**audit.to_json(), **fixed}))
    else:
        columns = min(80, width())
        typer.echo("\n".join(summary(audit, columns)))
        if work.fix is not None:
            # After the summary: the findings must not be lost if the copy cannot be written.
            fix_summary = printable(str(_fix(request, audit, work)))
            typer.echo("\n" + "\n".join(wrap(fix_summary, columns, long_words=False)))
        if page is not None and not output.quiet:
            typer.echo(f"\nReport with examples: {page.path}")
    if audit.broken:
        rule = "failed; the rest of this audit is complete"
        remedy = "Set HOLDFAST_TRACEBACK=1 to see the traceback, and please report it."
        raise Defect(", ".join(audit.broken), rule, "; ".join(audit.broken.values()), remedy)
    _leave(audit, work.fail_on or [], output.quiet)


def _leave(audit: Audit, fail_on: list[str], quiet: bool) -> None:
    """Exit with 3 if a finding was named with ``--fail-on``."""
    severities = {worse for one in fail_on for worse in FAILING.get(one, ())}
    met = [
        one.check for one in audit.findings if {one.severity} & severities or one.check in fail_on
    ]
    if met:
        exit_on_request(f"found {', '.join(dict.fromkeys(met))}", quiet)


def _check_outputs(request: AuditRequest, work: AuditWork) -> OutputFile | None:
    """The report to write, if any. Outputs that cannot be written are refused before the work."""
    from holdfast.core.outputs import check_output

    html, fix = work.html, work.fix
    page = None if html is None else check_output(html, request.inputs, force=work.force)
    if fix is not None:
        from holdfast.analyses.audit.fix import LOG, check_fix

        check_fix(request, fix, work.force)
        if html is not None and html.resolve() in (fix.resolve(), Path(f"{fix}{LOG}").resolve()):
            rule = "names a file that --fix writes"
            raise RunError("--html", rule, str(html), "Give the report another name.")
    return page


def _fix(request: AuditRequest, audit: Audit, work: AuditWork) -> FixResult:
    from holdfast.analyses.audit.fix import fix_audited

    assert work.fix is not None
    return fix_audited(request, audit, work.fix, work.force)


def _write(page: OutputFile, audit: Audit) -> None:
    from holdfast.core.outputs import open_output
    from holdfast.report.audit import render_audit

    text = render_audit(audit.to_json(), audit.shown())
    with open_output(page) as stream:
        stream.write(text.encode("utf-8"))


def summary(audit: Audit, columns: int) -> list[str]:
    """The lines, at most ``columns`` wide."""
    from holdfast.report.audit import audit_answer

    lines = ["", *wrap(audit_answer(audit.to_json()), columns), ""]
    lines += [*wrap(_rows(audit), columns, "  ")]
    for severity, head in SEVERITY_TITLES.items():
        findings = [(n, f) for n, f in enumerate(audit.findings) if f.severity == severity]
        if findings:
            lines += ["", head]
            for place, finding in findings:
                examples = audit.examples.get(place, ()) if severity != "info" else ()
                lines += _finding(finding, examples, columns)
    if audit.label_next is not None:
        lines += ["", *_label_first_lines(audit.label_next, columns)]
    lines += ["", *wrap(ROW_NUMBERS, columns, "", "  "), *_silent_checks(audit, columns)]
    return [printable(line) for line in lines]


def _rows(audit: Audit) -> str:
    text = audit.columns.get("text")
    names = [text] if isinstance(text, str) else list(text or ())
    label = audit.columns.get("label")
    read = ", ".join(f'"{name}"' for name in names) + (f' → "{label}"' if label else "")
    classes = f", {count_phrase(len(audit.label_counts), 'class', 'classes')}"
    against = f"; against {', '.join(audit.against)}" if audit.against else ""
    classes = classes if audit.label_counts else ""
    return f"{count_phrase(audit.rows, 'row')} of {audit.source}: {read}{classes}{against}"


def _finding(finding: Finding, examples: Sequence[ShownRow], columns: int) -> Iterator[str]:
    """The finding, its remedy, and examples."""
    head = f"  {SEVERITY_MARKS[finding.severity]} {finding.check}: "
    text = f"{head}{_sentence(finding.because)}"
    yield from wrap(text, columns, "", "     ")
    yield from wrap(f"→ {finding.remedy}", columns, "     ", "       ")
    for one in examples[:MAX_EXAMPLES]:
        yield from _example(one, columns)


def _example(one: ShownRow, columns: int) -> Iterator[str]:
    if one.other_row is None:
        yield from wrap(
            f"row {one.row}{_label(one.label)}: {_shorten_text(one.text)}", columns, "     | "
        )
        return
    place = f"row {one.other_row}" + (f" of {one.other_file}" if one.other_file else "")
    text, other = _differing_excerpts(one.text, one.other_text)
    yield from wrap(f"row {one.row}{_label(one.label)}: {text}", columns, "     | ")
    yield from wrap(f"{place}{_label(one.other_label)}: {other}", columns, "     | ")


def _differing_excerpts(one: str, other: str) -> tuple[str, str]:
    """Excerpts of two texts around their first difference; from their beginnings where they are
    short or equal."""
    first, second = " ".join(one.split()), " ".join(other.split())
    pairs = enumerate(zip(first, second, strict=False))
    first_difference = next((at for at, (a, b) in pairs if a != b), min(len(first), len(second)))
    if (
        first_difference == len(first) == len(second)
        or max(len(first), len(second)) <= MAX_CHARACTERS
    ):
        return _shorten_text(first), _shorten_text(second)
    start = max(0, first_difference - MAX_CHARACTERS // 2)
    ellipsis = "…" if start else ""
    return ellipsis + _shorten_text(first[start:]), ellipsis + _shorten_text(second[start:])


def _label_first_lines(labelling: LabelQueue, columns: int) -> Iterator[str]:
    """Which rows to label next, or that any order will do; ``--json`` has the full order."""
    rows = f"{count_phrase(labelling.count, 'row')} of {labelling.file} without a label"
    head = "Label these first" if labelling.ranked else "Label them in any order"
    yield from wrap(f"{rows}. {head}: {_sentence(labelling.because)}", columns, "", "  ")
    for row, text in zip(labelling.rows, labelling.shown[:MAX_ROWS_TO_LABEL], strict=False):
        yield from wrap(f"row {row}: {_shorten_text(text)}", columns, "     | ")


def _silent_checks(audit: Audit, columns: int) -> Iterator[str]:
    silent = audit.silent
    if silent:
        yield from wrap(f"No findings: {', '.join(silent)}.", columns, "", "  ")
    if "label_problems" in silent and audit.label_issues:
        text = (
            "No finding of label_problems does not mean that all labels are correct: label_issues "
            "in the output of --json ranks all rows, the most doubtful label first."
        )
        yield from wrap(text, columns, "", "  ")
    for why, names in _group_by_reason(audit.unseen).items():
        yield from wrap(f"Skipped ({why}): {', '.join(names)}.", columns, "", "  ")


def _group_by_reason(unseen: Mapping[str, str]) -> dict[str, list[str]]:
    checks_of_reason: dict[str, list[str]] = {}
    for name, why in unseen.items():
        checks_of_reason.setdefault(why, []).append(name)
    return checks_of_reason


def _label(label: str) -> str:
    return f" ({_shorten_text(label, 40)})" if label else ""


def _shorten_text(text: str, most: int = MAX_CHARACTERS) -> str:
    return shorten(" ".join(text.split()), most)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
