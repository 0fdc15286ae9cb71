"""Regression losses: squared or Huber error of one output, in deviations of the training rows'
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.stats.auc import average_ranks
from holdfast.tasks.classes.encoding import EncodedTexts, TextClassification
from holdfast.training.task import Batch, Measurements

if TYPE_CHECKING:
    import torch

    from holdfast.training.task import ClassifierOutput

# What every evaluation measures.
WATCHED = ("mae", "rmse", "r2", "spearman")


@dataclass(frozen=True, slots=True)
class Scale:
    """Numbers as a model learns them: (value − ``mean``) ÷ ``std``, both of the training rows."""

    mean: float = 0.0
    std: float = 1.0

    def inside(self, values: Floats) -> Floats:
        """In the user's unit → as learned, float64."""
        return np.asarray((values - self.mean) / self.std, dtype=np.float64)

    def outside(self, values: Floats) -> Floats:
        """As learned → in the user's unit, float64."""
        return np.asarray(values, dtype=np.float64) * self.std + self.mean


def number_losses(gaps: Floats, huber: float | None) -> Floats:
    """gap² of gaps [n] in deviations; with ``huber`` δ, ½ gap² up to δ and δ (|gap| − ½ δ) from
    there (Huber 1964)."""
    if huber is None:
        return np.asarray(gaps**2)
    size = np.abs(gaps)
    return np.where(size <= huber, 0.5 * size**2, huber * (size - 0.5 * huber))


def number_metrics(truth: Floats, answers: Floats) -> dict[str, float]:
    """MAE, RMSE, R² = 1 − Σ e² ÷ Σ (y − ȳ)², and Spearman's rank correlation (average ranks for
    ties). NaN where one is undefined: no rows, or numbers that do not vary."""
    if not len(truth):
        return dict.fromkeys(WATCHED, float("nan"))
    gaps = answers - truth
    spread = float(np.sum((truth - truth.mean()) ** 2))
    return {
        "mae": float(np.mean(np.abs(gaps))),
        "rmse": float(np.sqrt(np.mean(gaps**2))),
        "r2": 1 - float(np.sum(gaps**2)) / spread if spread > 0 else float("nan"),
        "spearman": rank_correlation(truth, answers),
    }


def rank_correlation(truth: Floats, answers: Floats) -> float:
    """Spearman's ρ of two lists [n]; NaN where either does not vary."""
    # Average ranks, since labels such as stars have many ties.
    first, second = average_ranks(truth), average_ranks(answers)
    first, second = first - first.mean(), second - second.mean()
    size = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum() / size) if size > 0 else float("nan")


@dataclass(frozen=True)
class Numbers(TextClassification):
    """The task as the training loop sees it. The network's output, and ``labels`` of the encoded
    rows, are in the unit of ``scale``.
    """

    name: str = "text-classification"
    scale: Scale = Scale()
    huber: float | None = None

    def losses(self, output: ClassifierOutput, batch: Batch) -> torch.Tensor:
        """Squared error, or Huber's, per row [batch], in squared deviations, float32."""
        import torch

        answers, truth = output.logits.float()[:, 0], batch["labels"].float()
        if self.huber is None:
            return torch.nn.functional.mse_loss(answers, truth, reduction="none")
        return torch.nn.functional.huber_loss(answers, truth, reduction="none", delta=self.huber)

    def measure(
        self, losses: Floats, kept: Floats, examples: EncodedTexts, positions: Sequence[int] | Ints
    ) -> Measurements:
        """MAE and RMSE in the user's unit, R² and rank correlation."""
        truth = examples.labels[np.asarray(positions, dtype=np.int64)].astype(np.float64)
        answers = kept[:, 0] if len(kept) else np.zeros(0)
        metrics = number_metrics(self.scale.outside(truth), self.scale.outside(answers))
        mean = float(np.mean(losses)) if len(losses) else float("nan")
        return Measurements(losses, metrics, mean, 1.0)
