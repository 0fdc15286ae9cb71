"""``holdfast errors``: weak slices, confused classes and hardest rows of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.options import Output


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    robust: Annotated[
        bool,
        typer.Option(
            "--robustness",
            help="Also predict changed test rows: typing errors, other case, and so on.",
        ),
    ] = False,
    topics: Annotated[
        bool,
        typer.Option("--topics", help="Also search for weak topics by clusters of embeddings."),
    ] = False,
    *,
    output: Output,
) -> None:
    """Show where RUN makes errors.

    Lists weak slices (found on validation rows, confirmed on test rows), pairs of confused classes,
    and the hardest rows with the most similar training rows. For a generative model: whether
    fine-tuning improved it, and faults of the generated texts.
    """
    from holdfast.analyses.errors.analysis import errors
    from holdfast.terminal.results.errors import errors_text

    with output.heard():
        errors_found = errors(run, robust=robust, topics=topics)
    output.show(errors_found, lambda columns: errors_text(errors_found, columns))
