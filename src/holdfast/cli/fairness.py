"""``holdfast fairness``: compare a finished run's predictions between groups of people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypedDict

import typer

from holdfast.cli.options import JsonOutput
from holdfast.core.machine import refuse_low_memory
from holdfast.core.wording import count_phrase, signed
from holdfast.terminal.layout import wrap


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
    output.show(document, lambda columns: fairness_text(document, columns))


def fairness_text(document: Mapping[str, Any], columns: int) -> str:
    """The report's section, the comparison with a run without mitigation, and how often the test
    rows were used."""
    from holdfast.analyses.fairness.section import as_document
    from holdfast.terminal.document import document_lines

    lines = document_lines(as_document(document["fairness"]), columns)
    pairs = document.get("against") or []
    if pairs:
        lines += ["", "Compared with the run without mitigation, on the validation rows of both:"]
        lines += [line for one in pairs for line in wrap(_trade_off(one), columns, "- ", "  ")]
    if document["openings"]:
        times = count_phrase(document["openings"], "time")
        lines += ["", *wrap(f"The test rows were used again for this: {times} so far.", columns)]
    return "\n".join(lines)


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


def _trade_off(one: TradeJson) -> str:
    gain = one["gain"]
    return (
        f"{one['by']}, {one['measure']}: gap {one['gap_plain']:.3f} → {one['gap']:.3f}, "
        f"accuracy {100 * one['accuracy_plain']:.1f} → {100 * one['accuracy']:.1f} %; changing "
        f"predictions at random to the same gap would give {100 * one['line']:.1f} %: "
        f"{one['verdict']} ({signed(100 * gain['value'])} points, 95 % CI "
        f"{signed(100 * gain['low'])} to {signed(100 * gain['high'])})"
    )
