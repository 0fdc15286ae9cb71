"""Reading the log at a path: the table of all log formats, with how each is recognised, read and
described.

A larger priority is tried first: a special format before the general one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from holdfast.core.curves import TRANSFORMERS, Curves
from holdfast.core.decisions import decisions_and_findings, record_decisions
from holdfast.core.discovery import missing_path_remedy, missing_rule
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.input_errors import reading_errors
from holdfast.core.records import Verdict
from holdfast.monitor.curves.verdict import judge_curves
from holdfast.plugins.logs import (
    Log,
    LogReader,
    databases,
    holdfast_run,
    not_a_log,
    tables,
    trackers,
)
from holdfast.plugins.logs import json_files as json
from holdfast.plugins.logs.choose import choose_curves
from holdfast.plugins.logs.holdfast_run import run_verdict

KERAS = "a Keras CSVLogger file or history JSON"
CSV = "a CSV with columns such as epoch, loss, val_loss"
STATE = "a Hugging Face trainer_state.json or checkpoint folder"
TENSORBOARD = "TensorBoard event files or their folder"
HOLDFAST = "Holdfast's run folder or events.jsonl"
LINES = "a JSONL file with such names, one object a line"
BOOSTING = "an XGBoost or LightGBM evals_result as JSON"
LIGHTNING = "a Lightning metrics.csv"
SKLEARN = "scikit-learn's loss_curve_ as JSON"
LLAMA_FACTORY = "LLaMA-Factory's trainer_log.jsonl"
ULTRALYTICS = "an Ultralytics results.csv"
WANDB = "a Weights & Biases wandb-history.jsonl"
DATABASE = "MLflow's mlflow.db or a Trackio database"

# In the order in which an error message lists them.
READERS = {
    "holdfast": LogReader(holdfast_run.accepts, holdfast_run.read, HOLDFAST, 6),
    "keras_history": LogReader(json.is_history, json.read_history, KERAS, 2),
    "boosting": LogReader(json.is_boosting, json.read_boosting, BOOSTING, 4),
    "database": LogReader(databases.is_database, databases.read_database, DATABASE, 6),
    "csv": LogReader(tables.is_table, tables.read_csv, CSV, 0),
    "fastai": LogReader(tables.is_fastai, tables.read_fastai, "fastai's history.csv", 3),
    TRANSFORMERS: LogReader(json.is_trainer_state, json.read_trainer_state, STATE, 5),
    "jsonl": LogReader(json.is_lines, json.read_lines, LINES, 0),
    "keras": LogReader(tables.is_keras, tables.read_keras, KERAS, 3),
    "lightning": LogReader(tables.is_lightning, tables.read_lightning, LIGHTNING, 4),
    "llama_factory": LogReader(json.is_llama_factory, json.read_llama_factory, LLAMA_FACTORY, 4),
    "mlflow": LogReader(trackers.is_mlflow, trackers.read_mlflow, "an MLflow run folder", 4),
    "sklearn": LogReader(json.is_sklearn, json.read_sklearn, SKLEARN, 4),
    "tensorboard": LogReader(trackers.is_tensorboard, trackers.read_tensorboard, TENSORBOARD, 1),
    "ultralytics": LogReader(tables.is_ultralytics, tables.read_ultralytics, ULTRALYTICS, 3),
    "wandb": LogReader(trackers.is_wandb, trackers.read_wandb, WANDB, 3),
}

REMEDY = f"Name a training log, for example {STATE}, or {CSV}."


def read_curves(path: Path, settings: Mapping[str, str] | None = None) -> Curves:
    """The curves of the log at ``path``, a file or a folder, whichever program wrote it.

    ``settings`` may name the columns ``train`` and ``valid``. Raises ``DataError`` where the path
    is missing, is not a log, or where the log is broken, and says what a log looks like.
    """
    with record_decisions() as log:
        curves = choose_curves(read_log(path), settings or {}, str(path))
    return replace(curves, decisions=decisions_and_findings(log)[0])


def read_verdict(path: Path, settings: Mapping[str, str] | None = None) -> tuple[Curves, Verdict]:
    """The curves of the log at ``path`` and their verdict.

    For Holdfast's own runs it is the run's own verdict, unless ``settings`` name series: then these
    are judged as in any log.
    """
    curves = read_curves(path, settings)
    own_run = run_verdict(path) if curves.source == "holdfast" and not settings else None
    if own_run is None:
        return curves, judge_curves(curves)
    return replace(curves, checkpoint=own_run.best_step), own_run.verdict


def read_log(path: Path) -> Log:
    """Everything numeric in the log at ``path``, from the most special reader that accepts it."""
    with reading_errors(str(path), DataError, "cannot be read as a log", REMEDY):
        in_database = databases.is_database(path)
        exists = in_database or path.exists()
        usable = in_database or path.is_file() or path.is_dir()
    if not exists:
        remedy = missing_path_remedy(path, folders=True)
        raise DataError(str(path), missing_rule(path), None, remedy)
    if not usable:
        raise not_a_log(str(path), "is a pipe or a device, not a file")
    if path.is_file() and not path.stat().st_size:
        raise not_a_log(str(path), "is empty")
    with reading_errors(str(path), DataError, "cannot be read as a log", REMEDY):
        # The most special first: a general one may have to search all files.
        for reader in sorted(READERS.values(), key=lambda one: -one.priority):
            if reader.accepts(path):
                return reader.read(path)
    raise not_a_log(str(path), "is not a log format that Holdfast knows")


def parse_settings(settings: Sequence[str]) -> dict[str, str]:
    """``["train=loss"]`` as ``{"train": "loss"}``; the column itself may contain ``=``."""
    columns = {}
    for setting in settings:
        key, mark, value = setting.partition("=")
        if not mark or not value:
            raise RecipeError("--set", "needs a series and a column", setting, "Write train=COL.")
        columns[key] = value
    return columns
