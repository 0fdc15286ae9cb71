"""``holdfast predict``: classes for new texts, from one run or the average of several."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.core.errors import RecipeError
from holdfast.core.machine import refuse_too_little

if TYPE_CHECKING:
    from holdfast.pipeline.using import Data

PROBABILITIES = "predict.probabilities"
ENSEMBLE = "predict.ensemble"
LIMITS = "data.limits."


def command(
    given: Annotated[
        list[str], typer.Argument(metavar="RUN [RUN]... DATA|-", help="Runs, then the data.")
    ],
    text: Annotated[
        list[str] | None,
        typer.Option(help="The text column, where DATA calls it otherwise; twice for pairs."),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of DATA, where it is not UTF-8, e.g. cp1252.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write a table here: .jsonl, .csv or .parquet.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that exists.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help=f"{PROBABILITIES}=true: a column a class; {ENSEMBLE}=stack or soup: how several "
            f"runs answer together; {LIMITS}KEY=VALUE: read more.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing beside the result.")] = False,
) -> None:
    """Predict DATA (or one text a line from standard input, with -).

    Every column of DATA is kept; prediction and confidence are added. Several runs are averaged,
    or (--set predict.ensemble=…) stacked by weights or put into one model.
    Below the run's threshold (holdfast threshold) a prediction is null: ask a person.
    Without --out, one JSON object a line is printed.
    """
    refuse_too_little("torch")
    from holdfast.cli.runs import ensemble_of, runs_and_data

    runs, data = runs_and_data("predict", given)
    ensemble, others = ensemble_of(set_ or [])
    probabilities, limits = _settings(others)
    from holdfast.cli.piped import piped
    from holdfast.pipeline.folder import need_run
    from holdfast.pipeline.predicted import check_target, write_lines, write_predictions
    from holdfast.pipeline.use import predict
    from holdfast.pipeline.using import Options
    from holdfast.terminal.say import Teller, tell_below, tell_empty

    target = None if out is None else check_target(out, runs, data, force)
    for run in runs:
        # Before all that is piped in is read.
        need_run(run)
    options = Options(tuple(text) if text else None, None, encoding, limits)
    rows: Data = piped(runs[0], options) if data == "-" else data
    predicted = predict(
        runs, rows, options, probabilities=probabilities, notify=Teller(quiet), ensemble=ensemble
    )
    if target is None:
        write_lines(predicted, sys.stdout)
    else:
        write_predictions(predicted, target)
    tell_empty(predicted.without_text, len(predicted), quiet)
    tell_below(predicted.below, len(predicted), quiet)


def _settings(settings: Sequence[str]) -> tuple[bool, tuple[str, ...]]:
    """The settings of this command: whether probabilities are asked for, and limits."""
    from holdfast.pipeline.using import check_limits

    asked, others = False, []
    for setting in settings:
        key, _, value = setting.partition("=")
        if key.strip() != PROBABILITIES:
            others.append(setting)
            continue
        if value.strip().lower() not in ("true", "false"):
            raise RecipeError(f"--set: {PROBABILITIES}", "must be true or false", value, "")
        asked = value.strip().lower() == "true"
    return asked, check_limits(
        others, "predict", f"{PROBABILITIES}=true, {ENSEMBLE}=stack|soup|average and "
    )
