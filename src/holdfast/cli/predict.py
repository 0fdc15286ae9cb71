"""``holdfast predict``: predictions for new rows, from one run or several."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import Force, Output, set_option
from holdfast.cli.run_input import (
    ENSEMBLE,
    LIMITS,
    TextOptions,
    check_target,
    piped_texts,
    runs_and_data,
    split_ensemble,
)
from holdfast.core.errors import RecipeError

if TYPE_CHECKING:
    from holdfast.contract.inference import Data

PROBABILITIES = "predict.probabilities"
CSV_SAFE = "predict.csv_safe"
SLICES = "predict.slices"


@dataclass(frozen=True, slots=True)
class WritingOptions:
    """Options of text generation."""

    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Longest generated text, in tokens. Default: the run's."),
    ] = None
    temperature: Annotated[
        float, typer.Option(min=0.0, max=2.0, help="Sampling temperature. 0: greedy decoding.")
    ] = 0.0
    seed: Annotated[int, typer.Option(min=0, help="Random seed for sampling.")] = 0


def command(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN [RUN]... DATA|-", help="Finished runs, then the rows to predict."
        ),
    ],
    read: TextOptions,
    out: Annotated[
        Path | None, typer.Option(help="Write a table here: .jsonl, .csv or .parquet.")
    ] = None,
    force: Force = False,
    set_: Annotated[
        list[str] | None,
        set_option(
            f"{PROBABILITIES}=true: one column of probabilities per class; {SLICES}=true: add the "
            f"run's weak slices that contain a row; {CSV_SAFE}=true: escape texts that a "
            f"spreadsheet reads as formulas; {ENSEMBLE}=stack or soup: how several runs are "
            f"combined; {LIMITS}KEY=VALUE: larger limits for the data."
        ),
    ] = None,
    *,
    writing: WritingOptions,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only the result.")] = False,
) -> None:
    """Predict the rows of DATA (with -, one text per line from standard input).

    The output keeps every column of DATA and adds prediction and confidence. Several runs are
    averaged, or (--set predict.ensemble=…) stacked with weights or merged into one model. Below
    the run's threshold (holdfast threshold) the prediction is null. Without --out, one JSON object
    per row is printed.
    """
    runs, data = runs_and_data("predict", given)
    ensemble, others = split_ensemble(set_ or [])
    switches, limits = _settings(others)
    from holdfast.analyses.evaluation import predict
    from holdfast.runs.prediction_file import ENDINGS, write_lines, write_predictions
    from holdfast.terminal.messages import report_missing_predictions

    target = None if out is None else check_target(out, ENDINGS, "predict", runs, data, force)
    if switches[CSV_SAFE] and (target is None or target.path.suffix.lower() != ".csv"):
        rule = "is for a CSV, which is not written here"
        raise RecipeError(f"--set: {CSV_SAFE}", rule, True, "Add --out FILE.csv, or leave it out.")
    options = read.options(limits, **asdict(writing))
    rows: Data = piped_texts(runs[0], options) if data == "-" else data
    with Output(quiet=quiet).heard():
        predicted = predict(
            runs,
            rows,
            options,
            probabilities=switches[PROBABILITIES],
            slices=switches[SLICES],
            ensemble=ensemble,
        )
    if target is None:
        write_lines(predicted, sys.stdout)
    else:
        write_predictions(predicted, target, csv_safe=switches[CSV_SAFE])
    missing = predicted.without_text, predicted.below, predicted.cut
    report_missing_predictions(*missing, len(predicted), quiet)


def _settings(settings: Sequence[str]) -> tuple[dict[str, bool], tuple[str, ...]]:
    """The settings of this command: switches by their keys, and limits."""
    from holdfast.contract.inference import check_limits

    switches, others = {PROBABILITIES: False, CSV_SAFE: False, SLICES: False}, []
    for setting in settings:
        key, _, value = (part.strip() for part in setting.partition("="))
        if key not in switches:
            others.append(setting)
            continue
        if value.lower() not in ("true", "false"):
            raise RecipeError(f"--set: {key}", "must be true or false", value, "")
        switches[key] = value.lower() == "true"
    known_settings = (
        f"{PROBABILITIES}=true, {SLICES}=true, {CSV_SAFE}=true, {ENSEMBLE}=stack|soup|average and "
    )
    return switches, check_limits(others, "predict", known_settings)
