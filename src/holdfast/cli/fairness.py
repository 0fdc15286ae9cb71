"""``holdfast fairness``: is a finished run as good for every group, and alike about everybody?"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated, Any, TypedDict

import typer

from holdfast.cli.options import JsonOutput
from holdfast.core.machine import refuse_low_memory
from holdfast.core.wording import count_phrase


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    group: Annotated[
        list[str] | None,
        typer.Option(help="A column of the source that tells groups apart; several times."),
    ] = None,
    terms: Annotated[
        Path | None, typer.Option(help="Your own terms to swap, a YAML file (docs/fairness.md).")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=0, help="Rows of a side that are swapped; 200, 0 for none.")
    ] = None,
    insert: Annotated[
        bool, typer.Option("--insert", help="Put terms before rows that have none.")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(help="A plain run of the same rows: was the mitigation worth its price?"),
    ] = None,
    *,
    output: JsonOutput,
) -> None:
    """Compare RUN's answers between groups of rows, and between texts about other people.

    Candidates are found on the validation rows and confirmed on the test rows. Without options it
    shows what the run stored.
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
    """What was found, in sentences, with a table a column."""
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
        lines += [
            "",
            "What these rows cannot decide:",
            *(f"- {line}" for line in view.inconclusive),
        ]
    lines += _trade_off_lines(document.get("against") or [])
    if view.alarms:
        lines += ["", view.alarms]
    if document["openings"]:
        times = count_phrase(document["openings"], "time")
        lines += ["", f"The test rows were opened again for this: {times} so far."]
    return lines


class GainJson(TypedDict):
    """A difference of accuracy with its interval."""

    value: float
    low: float
    high: float


class TradeJson(TypedDict):
    """A fairness measure beside that of the plain run, and what it cost."""

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
    lines = ["", "Beside the plain run, on the validation rows of both:"]
    for one in pairs:
        gain = one["gain"]
        lines.append(
            f"- {one['by']}, {one['measure']}: gap {one['gap_plain']:.3f} → {one['gap']:.3f}, "
            f"accuracy {100 * one['accuracy_plain']:.1f} → {100 * one['accuracy']:.1f} %; flipping "
            f"answers at random would leave {100 * one['line']:.1f} % at that gap: "
            f"{one['verdict']} ({100 * gain['value']:+.1f} points, {100 * gain['low']:+.1f} to "
            f"{100 * gain['high']:+.1f})"
        )
    return lines


def _wrapped(line: str, width: int) -> str:
    lead = len(line) - len(line.lstrip(" -"))
    return textwrap.fill(line, width, subsequent_indent=" " * lead) if line else line
