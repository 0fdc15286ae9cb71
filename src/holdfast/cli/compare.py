"""``holdfast compare``: test whether one model is better than another on the same rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import Output
from holdfast.cli.run_input import DataOptions
from holdfast.core.printable import shorten
from holdfast.core.wording import count_phrase
from holdfast.terminal.layout import entries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast.analyses.compare.compare import Comparison

MAX_EXAMPLES, MAX_CELL = 3, 60


def command(
    a: Annotated[
        str,
        typer.Argument(metavar="A", help="A run, the folder of a model, or a file of predictions."),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA", help="Labelled rows. Default: the test rows that both runs share."
        ),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(
            metavar="POINTS",
            help="The largest difference that does not matter, in percentage points (regression: "
            "in hundredths of the standard deviation).",
        ),
    ] = 1.0,
    *,
    rows: DataOptions,
    output: Output,
) -> None:
    """Compare A with B on the same rows: better, equivalent, worse, or how many rows would decide
    it. Rows that either model was trained on are left out and counted."""
    from holdfast.analyses.compare.compare import compare

    with output.heard(f"holdfast compare {a} {b}", progress=True) as printer:
        comparison = compare(a, b, data, margin=margin, options=rows.options())
    for warning in comparison.warnings:
        printer.line(f"!  {warning}")
    output.show(comparison.to_json(), lambda columns: comparison_text(comparison, columns))


def comparison_text(comparison: Comparison, columns: int) -> str:
    """The verdict, its numbers, its error rates, and rows on which the two differ."""
    block = comparison.to_json()
    times, unit = (100.0, " %") if comparison.pairs.scale == 1 else (1.0, "")
    lines = [("Verdict", comparison.because)]
    if block["n"]:
        each = (f"{name} {_number(block[key]['value'], times)}{unit}" for name, key in _MODELS)
        lines.append((block["metric"], "; ".join(each)))
    rows = count_phrase(block["n"], "row")
    rows += f" of {count_phrase(block['groups'], 'group')}" if block["groups"] else ""
    rows += ", the test rows of both" if comparison.from_stored else ""
    only = block["discordant"]
    if only:
        rows += f"; only A correct on {only['only_a']:,}, only B on {only['only_b']:,}"
    lines.append(("Rows", rows))
    lines.append(
        (
            "Error rate",
            "measured: “better” or “worse” is wrong in at most "
            f"{100 * block['false_alarms']['better_or_worse']:g} % of comparisons of equal models; "
            f"“equivalent” in at most {100 * block['false_alarms']['equivalent']:g} % of "
            "comparisons of models that differ by the margin",
        )
    )
    if block["classes"]:
        lines.append(("Classes", _classes_of_one_model(block["classes"])))
    if block["with_seen"]:
        with_seen = block["with_seen"]
        gap = _number(with_seen["difference"]["value"], times)
        apart = " points" if unit else ""
        lines.append(
            (
                "All rows",
                f"{count_phrase(with_seen['n'], 'row')}, including training rows: "
                f"A minus B {gap}{apart}",
            )
        )
    return "\n".join([*entries(lines, columns), *_examples(block["differ"], columns)])


_MODELS = (("A", "a"), ("B", "b"))


def _number(value: float | None, times: float) -> str:
    return "unknown" if value is None else f"{value * times:.4g}"


def _classes_of_one_model(classes: dict[str, list[str]]) -> str:
    parts = []
    for name, key in (("A", "only_a"), ("B", "only_b")):
        if classes[key]:
            parts.append(f"only {name} has {', '.join(classes[key][:10])}")
    return "; ".join(parts)


def _examples(
    differ: Mapping[str, Sequence[Mapping[str, object]] | None], columns: int
) -> list[str]:
    """Some rows on which one model is better: a line of text and a line of predictions each."""
    lines: list[str] = []
    for key, head in (("a_better", "A"), ("b_better", "B")):
        rows = differ.get(key) or []
        lines += [f"\nRows on which {head} is better"] if rows else []
        for row in rows[:MAX_EXAMPLES]:
            text = " ".join(str(row["text"]).split())
            lines.append(shorten(f"  {row['row']}: {text}", columns))
            predictions = ", ".join(
                f"{n} {shorten(_value_text(row[k]), MAX_CELL)}" for n, k in _MODELS
            )
            lines.append(
                shorten(
                    f"     label {shorten(_value_text(row['label']), MAX_CELL)}; {predictions}",
                    columns,
                )
            )
    return lines


def _value_text(value: object) -> str:
    return "none" if value is None else " ".join(str(value).split())
