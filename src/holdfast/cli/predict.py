"""``holdfast predict``: classes for new texts, from one run or the average of several."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from holdfast.core.errors import DataError, RecipeError


def command(
    runs_and_data: Annotated[
        list[str], typer.Argument(metavar="RUN [RUN]... DATA|-", help="Runs, then the data.")
    ],
    out: Annotated[Path | None, typer.Option(help="Write the JSONL here.")] = None,
) -> None:
    """Predict DATA (or one text a line from standard input, with -), as JSONL."""
    if len(runs_and_data) < 2:
        raise RecipeError(
            "holdfast predict", "needs a run and the data", runs_and_data,
            "E.g. holdfast predict runs/reviews-1 new.csv, or - to read texts from a pipe.",
        )  # fmt: skip
    *runs, data = runs_and_data
    from holdfast.core.files import write_text
    from holdfast.pipeline.use import predict_lines

    lines = predict_lines([Path(run) for run in runs], _stdin() if data == "-" else data)
    if out is None:
        sys.stdout.writelines(f"{line}\n" for line in lines)
        sys.stdout.flush()
    else:
        write_text(out, "".join(f"{line}\n" for line in lines))


def _stdin() -> list[str]:
    try:
        texts = sys.stdin.buffer.read().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError("standard input", "is not UTF-8", str(error), "Convert it first.") from None
    if not texts:
        raise DataError("standard input", "is empty", None, "Give one text a line.")
    return texts
