"""Every format of a log: how it is recognised, how it is read, what a person calls it.

A larger priority is asked first: a special format before the general one.
"""

from __future__ import annotations

from holdfast.core.curves import TRANSFORMERS
from holdfast.plugins.logs import LOGS, LogReader, holdfast_run, tables, trackers
from holdfast.plugins.logs import json_files as json

KERAS = "a Keras CSVLogger file or history JSON"

# In the order in which an error message lists them.
for name, accepts, read, looks, priority in (
    (
        "holdfast",
        holdfast_run.accepts,
        holdfast_run.read,
        "Holdfast's run folder or events.jsonl",
        6,
    ),
    ("keras_history", json.is_history, json.read_history, KERAS, 2),
    (
        "boosting",
        json.is_boosting,
        json.read_boosting,
        "an XGBoost or LightGBM evals_result as JSON",
        4,
    ),
    (
        "csv",
        tables.is_table,
        tables.read_csv,
        "a CSV with columns such as epoch, loss, val_loss",
        0,
    ),
    ("fastai", tables.is_fastai, tables.read_fastai, "fastai's history.csv", 3),
    (
        TRANSFORMERS,
        json.is_trainer_state,
        json.read_trainer_state,
        "a Hugging Face trainer_state.json or checkpoint folder",
        5,
    ),
    ("jsonl", json.is_lines, json.read_lines, "a JSONL file with such names, one object a line", 0),
    ("keras", tables.is_keras, tables.read_keras, KERAS, 3),
    ("lightning", tables.is_lightning, tables.read_lightning, "a Lightning metrics.csv", 4),
    (
        "llama_factory",
        json.is_llama_factory,
        json.read_llama_factory,
        "LLaMA-Factory's trainer_log.jsonl",
        4,
    ),
    ("mlflow", trackers.is_mlflow, trackers.read_mlflow, "an MLflow run folder", 4),
    ("sklearn", json.is_sklearn, json.read_sklearn, "scikit-learn's loss_curve_ as JSON", 4),
    (
        "tensorboard",
        trackers.is_tensorboard,
        trackers.read_tensorboard,
        "TensorBoard event files or their folder",
        1,
    ),
    (
        "ultralytics",
        tables.is_ultralytics,
        tables.read_ultralytics,
        "an Ultralytics results.csv",
        3,
    ),
    ("wandb", trackers.is_wandb, trackers.read_wandb, "a Weights & Biases wandb-history.jsonl", 3),
):
    LOGS.add(name, LogReader(accepts, read, looks, priority))
