"""``holdfast diagnose``: the verdict on a training log."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.options import EndOptions, FailOn, Force, JsonOutput, Output, set_option
from holdfast.core.decisions import notify
from holdfast.core.run_shapes import VERDICT
from holdfast.core.shapes import (
    anything,
    count,
    document,
    list_of,
    mapping_of,
    number,
    optional,
    record,
    text,
)
from holdfast.core.wording import interval_phrase, percent_phrase
from holdfast.terminal.layout import width, wrap
from holdfast.terminal.streams import json_text

if TYPE_CHECKING:
    from holdfast.core.curves import Curves
    from holdfast.core.outputs import OutputFile
    from holdfast.core.records import Verdict

NO_BREAK = "\x1f"
PAGE_SUFFIXES = (".html", ".htm")
# Savings by an earlier stop are no advice where a run should have continued, or where nothing is
# known.
UNFINISHED_LABELS = ("learning", "underfit", "inconclusive")


DOCUMENT = document(
    {
        "source": text,
        "verdict": VERDICT,
        "best_step": optional(number),
        "series": record(dict.fromkeys(("train", "valid"), optional(text)), ("train", "valid")),
        "points": count,
        "axis": text,
        "valid_rows": optional(count),
        "patterns": list_of(mapping_of(anything)),
        "saved": anything,
    },
    ("source", "verdict", "best_step", "series", "points"),
)


def command(
    log: Annotated[
        Path,
        typer.Argument(
            help="A training log or its folder: trainer_state.json, CSV, JSONL, event files, a run."
        ),
    ],
    settings: Annotated[
        list[str] | None, set_option("Name a series: train=COL or valid=COL.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report to this file.")] = None,
    force: Force = False,
    fail_on: FailOn = None,
    *,
    output: JsonOutput,
) -> None:
    """Diagnose a training log: whether the run learned, overfitted or diverged, since when, and
    what to do.
    """
    from holdfast.plugins.logs.reader import parse_settings, read_verdict

    end = EndOptions(fail_on=fail_on)
    page = None if html is None else _page(html, log, force)
    curves, verdict = read_verdict(log, parse_settings(settings or []))
    result_document = diagnosis_document(curves, verdict)
    with Output().heard():
        notify(*curves.decisions)
    if page is not None:
        from holdfast.core.outputs import open_output
        from holdfast.report.diagnosis import render_diagnosis

        text = render_diagnosis(curves, result_document, log.name or str(log.resolve()))
        with open_output(page) as stream:
            stream.write(text.encode("utf-8"))
    if output.as_json:
        typer.echo(json_text(result_document))
    else:
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        typer.echo(format_diagnosis(curves, verdict, min(80, width()), colour))
    end.leave([verdict.label], "the", quiet=False)


def _page(html: Path, log: Path, force: bool) -> OutputFile:
    """The output file of the report. It never replaces the log, a file of a run or of a folder of
    logs; only an earlier report, with ``force``.
    """
    from holdfast.contract.run_folder import run_files_in
    from holdfast.core.outputs import check_output

    inputs = [log]
    if log.is_dir():
        inputs = (
            run_files_in(log) if html.suffix.lower() in PAGE_SUFFIXES else [log, *run_files_in(log)]
        )
    return check_output(html, inputs, force=force)


def diagnosis_document(curves: Curves, verdict: Verdict) -> dict[str, Any]:
    """The document that ``--json`` prints."""
    from holdfast.core.curves import logged_position
    from holdfast.core.records import to_json
    from holdfast.monitor.curves.patterns import patterns_of

    series = {"train": curves.train, "valid": curves.valid}
    return {
        "schema": 1,
        "source": curves.source,
        "verdict": to_json(verdict),
        "best_step": logged_position(curves.best),
        "series": {split: s.name if s is not None else None for split, s in series.items()},
        "points": curves.points,
        "axis": curves.axis,
        "valid_rows": curves.valid_rows,
        "patterns": [one.to_json() for one in patterns_of(curves)],
        "saved": None if verdict.label in UNFINISHED_LABELS else early_stopping_savings(curves),
    }


def early_stopping_savings(curves: Curves) -> dict[str, Any] | None:
    """What stopping at the best evaluation would have saved.

    ``positions`` on the log's axis, their ``share`` of the run so far, and ``seconds`` where the
    log has times; ``None`` without a best evaluation.
    """
    from holdfast.core.curves import logged_position

    if curves.best is None or curves.last is None:
        return None
    # Steps count finished work; an epoch or a row stands for an interval that ends there.
    first_positions = [
        float(s.positions[0]) for s in (curves.train, curves.valid) if s is not None and len(s)
    ]
    first = (
        0.0 if curves.axis == "step" else min(0.0, *first_positions) - (min(first_positions) < 1)
    )
    span = curves.last - first
    share = (curves.last - curves.best) / span if span > 0 else 0.0
    seconds = None if curves.seconds is None else share * curves.seconds
    return {
        "positions": logged_position(curves.last - curves.best),
        "share": share,
        "seconds": seconds,
    }


def format_diagnosis(curves: Curves, verdict: Verdict, columns: int, colour: bool) -> str:
    """The verdict as text, ``columns`` wide."""
    from holdfast.cli.charts import curve_chart
    from holdfast.report.numbers import NBSP, strength

    since = "" if verdict.since_step is None else f" since {curves.axis} {verdict.since_step:g}"
    shown = strength(verdict.confidence).replace(NBSP, " ")
    confidence = f"  (strength of evidence {shown})" if verdict.confidence else ""
    head_lines = [
        f"{verdict.label}{since}{confidence}",
        "",
        *wrap(verdict.because, columns, "  ", long_words=False),
        "",
    ]
    head_lines += _fact_lines(curves, verdict, columns)
    parts = ["\n".join(head_lines).rstrip(), curve_chart(curves, columns, colour)]
    parts += [
        "\n".join(_evidence(verdict)),
        "\n".join(_pattern_lines(curves, columns)),
        "\n".join(_remedies(curves, verdict, columns)),
    ]
    return "\n\n".join(part for part in parts if part)


def _fact_lines(curves: Curves, verdict: Verdict, columns: int) -> Iterator[str]:
    from holdfast.core.curves import logged_position
    from holdfast.report.answer.answer import DISCARDED

    if curves.best is not None and curves.valid is not None:
        where = f"{curves.axis} {logged_position(curves.best):g}"
        # For Holdfast's own runs the best checkpoint, which the raw loss did not choose.
        checkpoint_words = "Best checkpoint" if curves.checkpoint is not None else "Best evaluation"
        finite = curves.valid.finite
        value = finite.values[finite.positions == curves.best]
        value_words = f": {curves.valid.name} {value[0]:.4g}" if len(value) else ""
        if curves.checkpoint is not None and len(value) and value[0] > finite.values.min():
            value_words += f" (the run's choice; the lowest is {finite.values.min():.4g})"
        yield f"  {checkpoint_words}  {where}{value_words}"
        for decision in curves.decisions:
            if decision.what == DISCARDED:
                yield from wrap(decision.because, columns, "  ", long_words=False)
        if verdict.label not in UNFINISHED_LABELS:
            yield f"  Stopping there   {_savings_words(curves)}"
    if verdict.cause:
        cause = f"  Likely cause     {verdict.cause}"
        yield from wrap(cause, columns, "", " " * 19, long_words=False)


def _savings_words(curves: Curves) -> str:
    savings = early_stopping_savings(curves)
    if savings is None or not savings["positions"]:
        return "would have saved nothing: it is the last one"
    unit = curves.axis if savings["positions"] == 1 else f"{curves.axis}s"
    time = "" if savings["seconds"] is None else f", about {_format_duration(savings['seconds'])}"
    return (
        f"would have saved {savings['positions']:,g} {unit} ({percent_phrase(savings['share'])} of "
        f"the run{time})"
    )


def _evidence(verdict: Verdict) -> Iterator[str]:
    from holdfast.report.view.headline import evidence_name

    if verdict.evidence:
        yield "  Evidence"
    names = [evidence_name(item.name) for item in verdict.evidence]
    longest = max(map(len, names), default=0)
    for name, item in zip(names, verdict.evidence, strict=True):
        value = "–" if item.value is None else f"{item.value:.3g}"
        span = interval_phrase(item.low, item.high, lambda bound: f"{bound:.3g}")
        yield f"    {name:{longest}}  {value}{f' ({span})' if span else ''}"


def _pattern_lines(curves: Curves, columns: int) -> Iterator[str]:
    from holdfast.monitor.curves.patterns import patterns_of

    found = patterns_of(curves)
    if found:
        yield "  Patterns"
    for one in found:
        text = f"    {one.name}: {one.because}. {one.meaning[:1].upper()}{one.meaning[1:]}."
        yield from wrap(text, columns, "", " " * 6, long_words=False)


def _remedies(curves: Curves, verdict: Verdict, columns: int) -> Iterator[str]:
    """Settings of ``holdfast train``, said to be Holdfast's where the log is another trainer's; for
    a log of the Transformers trainer, the remedy's text names its arguments.
    """
    from holdfast.core.curves import TRANSFORMERS

    if verdict.remedies:
        yield "  Next steps"
    for position, remedy in enumerate(verdict.remedies, 1):
        # An option and its value stay on one line.
        ours = () if curves.source == TRANSFORMERS else remedy.set
        options = "".join(f" --set{NO_BREAK}{setting}" for setting in ours)
        if options and curves.source != "holdfast":
            options = f" (in Holdfast:{options})"
        text = f"    {position}. {remedy.do}{options}"
        lines = wrap(text, columns, "", " " * 7, long_words=False)
        yield from (line.replace(NO_BREAK, " ") for line in lines)


def _format_duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
