"""Proper scores of the probabilities: cross-entropy, the same after its best temperature, Brier."""

from __future__ import annotations

import math

import numpy as np

from holdfast.core.records import Outputs
from holdfast.stats.temperature import best_temperature
from holdfast.tasks.metrics.base import Metric, add_metric


def loss(outputs: Outputs, classes: tuple[str, ...]) -> float:
    """Mean cross-entropy in nats, from 0; ln(classes) for a model that knows nothing."""
    return float(np.mean(outputs.losses))


def refined_loss(outputs: Outputs, classes: tuple[str, ...]) -> float:
    """Mean cross-entropy in nats after the temperature that minimises it on these very rows
    (Berta et al., 2501.19195): knowing without confidence. For choosing a state, not for a
    headline, since the temperature is fitted where it is measured."""
    return best_temperature(outputs.logits, outputs.labels)[1]


def brier(outputs: Outputs, classes: tuple[str, ...]) -> float:
    """Mean of Σ_c (p_c − 1[c = label])², in [0, 2] (Brier 1950, the sum over all classes)."""
    gap = outputs.probabilities.copy()
    gap[np.arange(len(gap)), outputs.labels] -= 1
    return float(np.mean((gap**2).sum(axis=1)))


LOSS = add_metric(
    Metric("loss", False, 0.0, math.inf, loss, "there are no rows, or a loss is not finite")
)
REFINED_LOSS = add_metric(
    Metric(
        "refined_loss",
        False,
        0.0,
        math.inf,
        refined_loss,
        "there are no rows, or a logit is not finite",
    )
)
BRIER = add_metric(Metric("brier", False, 0.0, 2.0, brier))
