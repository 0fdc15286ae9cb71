"""``holdfast fairness``: compare a finished run's predictions between groups of people."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated, Any, TypedDict

import typer

from holdfast.cli.options import JsonOutput
from holdfast.core.machine import refuse_low_memory
from holdfast.core.wording import count_phrase, signed


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    group: Annotated[
        list[str] | None,
        typer.Option(help="A column of the source that defines groups; repeatable."),
    ] = None,
    terms: Annotated[
        Path | None, typer.Option(help="A YAML file of your own terms to swap by group.")
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(min=0, help="Rows per split in which terms are swapped. Default: 200."),
    ] = None,
    insert: Annotated[
        bool, typer.Option("--insert", help="Insert a term before rows that contain none.")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(help="A run on the same rows without mitigation, to compare with."),
    ] = None,
    *,
    output: JsonOutput,
) -> None:
    """Compare RUN's predictions between groups of rows, and between texts in which a term for one
    group of people is swapped for another.

    Candidates are found on validation rows and confirmed on test rows. Without options, the stored
    result of the run is shown.
    """
    refuse_low_memory("torch")
    from holdfast.analyses.fairness.analysis import FairnessRequest, fairness_document

    terms_path = None if terms is None else str(terms.absolute())
    document = fairness_document(
        run, FairnessRequest(tuple(group or ()), terms_path, rows, insert), against
    )
    output.show(
        document,
        lambda columns: "\n".join(_wrapped(one, columns) for one in fairness_lines(document)),
    )


def fairness_lines(document: dict[str, Any]) -> list[str]:
    """The findings in sentences, with one table per column."""
    from holdfast.analyses.fairness.section import view_of

    view = view_of(document["fairness"])
    lines = [view.answer]
    for line in view.findings:
        lines += ["", f"- {line}"]
    for first, second, values in view.examples[:3]:
        lines += ["", f"    {first}", f"    {second}", f"    {values}"]
    for table in view.tables:
        lines += ["", f"By {table.column}:"]
        for place, (name, count) in enumerate(table.groups):
            lines.append(f"  {name} ({count} test rows)")
            lines += [f"    {measure}: {cells[place]}" for measure, cells in table.lines]
    if view.inconclusive:
        lines += ["", "Inconclusive with these rows:", *(f"- {line}" for line in view.inconclusive)]
    lines += _trade_off_lines(document.get("against") or [])
    if view.alarms:
        lines += ["", view.alarms]
    if document["openings"]:
        times = count_phrase(document["openings"], "time")
        lines += ["", f"The test rows were used again for this: {times} so far."]
    return lines


class GainJson(TypedDict):
    """A difference in accuracy with its interval."""

    value: float
    low: float
    high: float


class TradeJson(TypedDict):
    """A fairness measure with and without mitigation, and its cost in accuracy."""

    by: str
    measure: str
    gap_plain: float
    gap: float
    accuracy_plain: float
    accuracy: float
    line: float
    verdict: str
    gain: GainJson


def _trade_off_lines(pairs: list[TradeJson]) -> list[str]:
    if not pairs:
        return []
    lines = ["", "Compared with the run without mitigation, on the validation rows of both:"]
    for one in pairs:
        gain = one["gain"]
        lines.append(
            f"- {one['by']}, {one['measure']}: gap {one['gap_plain']:.3f} → {one['gap']:.3f}, "
            f"accuracy {100 * one['accuracy_plain']:.1f} → {100 * one['accuracy']:.1f} %; changing "
            f"predictions at random to the same gap would give {100 * one['line']:.1f} %: "
            f"{one['verdict']} ({signed(100 * gain['value'])} points, 95 % CI "
            f"{signed(100 * gain['low'])} to {signed(100 * gain['high'])})"
        )
    return lines


def _wrapped(line: str, width: int) -> str:
    lead = len(line) - len(line.lstrip(" -"))
    return textwrap.fill(line, width, subsequent_indent=" " * lead) if line else line
