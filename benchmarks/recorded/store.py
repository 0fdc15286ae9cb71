"""What a recording keeps of a snapshot, by rows and plainly, and the folder of recordings."""

from __future__ import annotations

import os
from pathlib import Path

ROWS = ("train_losses", "valid_losses", "train_correct", "valid_correct", "valid_logits")
PLAIN = (
    "step",
    "epoch",
    "examples_seen",
    "phase",
    "train_metrics",
    "valid_metrics",
    "refined_loss",
    "temperature",
    "learning_rate",
    "gradient_norm",
    "relative_update",
    "distance",
    "seconds",
)


def folder() -> Path:
    base = Path.home() / ".cache" / "holdfast" / "base_models"
    return Path(os.environ.get("HOLDFAST_CACHE", base)).parent / "recordings"
