"""The share of rows whose prediction is the label."""

from __future__ import annotations

import numpy as np

from holdfast.core.records import Outputs
from holdfast.tasks.metrics.base import Metric, add_metric


def accuracy(outputs: Outputs, classes: tuple[str, ...]) -> float:
    """Σ 1[prediction = label] ÷ n, in [0, 1]. A tie of logits goes to the lower class."""
    return float(np.mean(outputs.predictions == outputs.labels))


ACCURACY = add_metric(Metric("accuracy", True, 0.0, 1.0, accuracy))
