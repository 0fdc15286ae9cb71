"""``holdfast probe``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from holdfast.cli.options import Output
from holdfast.core.errors import RecipeError


@dataclass(frozen=True, slots=True)
class FileOptions:
    """Files of rows that MODEL was and was not trained on, and how they are read."""

    members: Annotated[
        str | None, typer.Option(metavar="FILE", help="Rows that MODEL was trained on.")
    ] = None
    others: Annotated[
        str | None, typer.Option(metavar="FILE", help="Similar rows that MODEL was not trained on.")
    ] = None
    start: Annotated[str | None, typer.Option(help="The base model of a generative MODEL.")] = None
    text: Annotated[list[str] | None, typer.Option(help="The text column.")] = None
    label: Annotated[str | None, typer.Option(help="The column of labels or target texts.")] = None
    encoding: Annotated[
        str | None, typer.Option(help="The encoding of the files if not UTF-8, e.g. cp1252.")
    ] = None


def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL",
            help="A finished run; or any saved model, with --members and --others.",
        ),
    ],
    files: FileOptions,
    output: Output,
) -> None:
    """Measure how much RUN memorized its training rows, and what it forgot of the base model's
    abilities. For any other MODEL: whether it memorized the rows of --members."""
    from holdfast.api.commands import probe
    from holdfast.terminal.results.probe import probe_text

    if (files.members is None) != (files.others is None):
        remedy = "Give rows that the model was trained on, and rows that it was not trained on."
        raise RecipeError("holdfast probe", "needs both --members and --others", None, remedy)
    with output.heard(progress=True) as printer:
        document = probe(model, **asdict(files), notify=printer)
    output.show(document, lambda columns: probe_text(document, columns))
