"""``holdfast threshold``: the confidence below which a run makes no prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.options import Output

# The exit code where nothing can be guaranteed and nothing was written.
NO_PROMISE = 3


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    precision: Annotated[
        float | None,
        typer.Option(metavar="P", help="The least share of correct predictions, e.g. 0.95."),
    ] = None,
    coverage: Annotated[
        float | None,
        typer.Option(metavar="C", help="The least share of rows with a prediction, e.g. 0.8."),
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A CSV file true,predicted,cost; an empty predicted means no prediction.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the run's existing threshold.")
    ] = False,
    *,
    output: Output,
) -> None:
    """Choose a confidence threshold for RUN on its validation rows, with a guarantee, and measure
    it on its test rows.

    Afterwards predict returns null for rows below the threshold. If nothing can be guaranteed, the
    exit code is 3, nothing is written, and the best possible guarantee is printed.
    """
    from holdfast.analyses.threshold.analysis import ThresholdRequest, set_threshold
    from holdfast.runs.threshold import FILE
    from holdfast.terminal.results.threshold import threshold_text

    request = ThresholdRequest(precision, coverage, cost)
    with output.heard(f"holdfast threshold {run}", progress=True) as printer:
        document = set_threshold(run, request, force=force)
    if document["rule"] is not None:
        printer.line(f"{run / FILE} written", "predict applies it; delete the file to undo this")
    output.show(document, lambda columns: threshold_text(document, columns))
    if document["rule"] is None:
        raise typer.Exit(NO_PROMISE)
