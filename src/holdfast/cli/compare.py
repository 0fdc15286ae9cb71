"""``holdfast compare``: is one model better than another, on the same rows?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import Output
from holdfast.cli.run_input import DataOptions
from holdfast.core.machine import refuse_too_little
from holdfast.core.wording import counted
from holdfast.terminal.layout import cut, entries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast.analyses.compare.compare import Comparison

EXAMPLES, CELL = 3, 60


def command(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A", help="A run, a plain model's folder, or a file of predictions."
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA", help="Labelled rows; left out, those that were test rows of both runs."
        ),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(
            metavar="POINTS",
            help="The difference that does not matter, in points (of numbers: of hundredths of "
            "their standard deviation).",
        ),
    ] = 1.0,
    *,
    rows: DataOptions,
    output: Output,
) -> None:
    """Compare A with B on the same rows: better, equivalent, worse, or how many rows would settle
    it. Rows that either had learned from are left out, and counted."""
    refuse_too_little("torch")
    from holdfast.analyses.compare.compare import compare

    with output.heard(f"holdfast compare {a} {b}") as teller:
        found = compare(a, b, data, margin=margin, options=rows.options())
    for warning in found.warnings:
        teller.line(f"!  {warning}")
    output.show(found.to_json(), lambda columns: shown(found, columns))


def shown(found: Comparison, columns: int) -> str:
    """The verdict, its numbers, what it may err, and where the two differ."""
    block = found.to_json()
    times, unit = (100.0, " %") if found.pairs.scale == 1 else (1.0, "")
    told = [("Verdict", found.because)]
    if block["n"]:
        each = (f"{name} {_number(block[side]['value'], times)}{unit}" for name, side in _SIDES)
        told.append((block["metric"], "; ".join(each)))
    rows = counted(block["n"], "row")
    rows += f" of {counted(block['groups'], 'group')}" if block["groups"] else ""
    rows += ", the test rows of both" if found.from_stored else ""
    only = block["discordant"]
    if only:
        rows += f"; only A correct on {only['only_a']:,}, only B on {only['only_b']:,}"
    told.append(("Rows", rows))
    told.append(
        (
            "Errors",
            "measured: better or worse is wrong in at most "
            f"{100 * block['false_alarms']['better_or_worse']:g} % of comparisons (of equal "
            f"models), equivalent in at most {100 * block['false_alarms']['equivalent']:g} % (of "
            "models that differ by the margin)",
        )
    )
    if block["classes"]:
        told.append(("Classes", _only(block["classes"])))
    if block["with_seen"]:
        whole = block["with_seen"]
        gap = _number(whole["difference"]["value"], times)
        apart = " points" if unit else ""
        told.append(("With seen", f"{counted(whole['n'], 'row')}: A minus B {gap}{apart}"))
    return "\n".join([*entries(told, columns), *_examples(block["differ"], columns)])


_SIDES = (("A", "a"), ("B", "b"))


def _number(value: float | None, times: float) -> str:
    return "unknown" if value is None else f"{value * times:.4g}"


def _only(classes: dict[str, list[str]]) -> str:
    told = []
    for name, key in (("A", "only_a"), ("B", "only_b")):
        if classes[key]:
            told.append(f"only {name} knows {', '.join(classes[key][:10])}")
    return "; ".join(told)


def _examples(
    differ: Mapping[str, Sequence[Mapping[str, object]] | None], columns: int
) -> list[str]:
    """Some rows that one of the two answers better, a line of text and one of answers each."""
    lines: list[str] = []
    for key, head in (("a_better", "A"), ("b_better", "B")):
        rows = differ.get(key) or []
        lines += [f"\nRows on which {head} is better"] if rows else []
        for row in rows[:EXAMPLES]:
            text = " ".join(str(row["text"]).split())
            lines.append(cut(f"  {row['row']}: {text}", columns))
            said = ", ".join(f"{n} {cut(_said(row[k]), CELL)}" for n, k in _SIDES)
            lines.append(cut(f"     label {cut(_said(row['label']), CELL)}; {said}", columns))
    return lines


def _said(value: object) -> str:
    return "none" if value is None else " ".join(str(value).split())
