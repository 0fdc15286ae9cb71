"""``holdfast fairness``: compare a finished run's predictions between groups of people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.options import JsonOutput


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
    from holdfast.analyses.fairness.analysis import FairnessRequest, fairness_document
    from holdfast.terminal.results.fairness import fairness_text

    terms_path = None if terms is None else str(terms.absolute())
    document = fairness_document(
        run, FairnessRequest(tuple(group or ()), terms_path, rows, insert), against
    )
    output.show(document, lambda columns: fairness_text(document, columns))
