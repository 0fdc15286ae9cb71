"""Every format of a log: how it is recognised, how it is read, what a person calls it.

A larger priority is asked first: a special format before the general one.
"""

from __future__ import annotations

from holdfast.core.curves import TRANSFORMERS
from holdfast.plugins.logs import LOGS, LogReader, holdfast_run, tables, trackers
from holdfast.plugins.logs import json_files as json

KERAS = "a Keras CSVLogger file or history JSON"
CSV = "a CSV with columns such as epoch, loss, val_loss"
STATE = "a Hugging Face trainer_state.json or checkpoint folder"
TENSORBOARD = "TensorBoard event files or their folder"
HOLDFAST = "Holdfast's run folder or events.jsonl"
LINES = "a JSONL file with such names, one object a line"
BOOSTING = "an XGBoost or LightGBM evals_result as JSON"
LLAMA_FACTORY = "LLaMA-Factory's trainer_log.jsonl"
ULTRALYTICS = "an Ultralytics results.csv"
WANDB = "a Weights & Biases wandb-history.jsonl"

# In the order in which an error message lists them.
READERS = {
    "holdfast": (holdfast_run.accepts, holdfast_run.read, HOLDFAST, 6),
    "keras_history": (json.is_history, json.read_history, KERAS, 2),
    "boosting": (json.is_boosting, json.read_boosting, BOOSTING, 4),
    "csv": (tables.is_table, tables.read_csv, CSV, 0),
    "fastai": (tables.is_fastai, tables.read_fastai, "fastai's history.csv", 3),
    TRANSFORMERS: (json.is_trainer_state, json.read_trainer_state, STATE, 5),
    "jsonl": (json.is_lines, json.read_lines, LINES, 0),
    "keras": (tables.is_keras, tables.read_keras, KERAS, 3),
    "lightning": (tables.is_lightning, tables.read_lightning, "a Lightning metrics.csv", 4),
    "llama_factory": (json.is_llama_factory, json.read_llama_factory, LLAMA_FACTORY, 4),
    "mlflow": (trackers.is_mlflow, trackers.read_mlflow, "an MLflow run folder", 4),
    "sklearn": (json.is_sklearn, json.read_sklearn, "scikit-learn's loss_curve_ as JSON", 4),
    "tensorboard": (trackers.is_tensorboard, trackers.read_tensorboard, TENSORBOARD, 1),
    "ultralytics": (tables.is_ultralytics, tables.read_ultralytics, ULTRALYTICS, 3),
    "wandb": (trackers.is_wandb, trackers.read_wandb, WANDB, 3),
}
for name, reader in READERS.items():
    LOGS.add(name, LogReader(*reader))
