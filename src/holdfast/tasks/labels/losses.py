"""Multi-label losses: one yes or no for each label of a text, binary cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.tasks.classes.encoding import EncodedTexts, TextClassification
from holdfast.tasks.rates import f1_of
from holdfast.training.task import Batch, Measurements

if TYPE_CHECKING:
    import torch

    from holdfast.training.task import ClassifierOutput

# What every evaluation measures.
WATCHED = ("f1_micro", "f1_macro", "exact_match")


def set_losses(logits: Floats, labels: Floats) -> Floats:
    """Mean over the labels of −[y log p + (1 − y) log(1 − p)], p = 1 ÷ (1 + e^−logit): [n], in
    nats; computed in float64."""
    wide = logits.astype(np.float64)
    # The same sum without an exponential that could overflow.
    each = np.maximum(wide, 0) - wide * labels + np.log1p(np.exp(-np.abs(wide)))
    return np.asarray(each.mean(axis=1))


@dataclass(frozen=True)
class LabelSets(TextClassification):
    """The task as the training loop sees it; ``classes`` are the labels. A label is predicted from
    p = 0.5.
    """

    name: str = "text-classification"

    def losses(self, output: ClassifierOutput, batch: Batch) -> torch.Tensor:
        """Mean binary cross-entropy over the labels, per row [batch], in nats, in float32."""
        import torch

        each = torch.nn.functional.binary_cross_entropy_with_logits(
            output.logits.float(), batch["labels"].float(), reduction="none"
        )
        return each.mean(dim=1)

    def measure(
        self, losses: Floats, kept: Floats, examples: EncodedTexts, positions: Sequence[int] | Ints
    ) -> Measurements:
        """Micro and macro F1 (over the labels that occur or are predicted) and the share of rows
        whose set is exactly correct; all NaN when there are no rows.
        """
        if not len(losses):
            return Measurements(losses, dict.fromkeys(WATCHED, float("nan")), float("nan"), 1.0)
        truth = examples.labels[np.asarray(positions, dtype=np.int64)] > 0.5
        answers = kept > 0
        exact = (truth == answers).all(axis=1)
        counts = (truth & answers).sum(0), truth.sum(0), answers.sum(0)
        each = f1_of(*(count.astype(np.float64) for count in counts))
        micro = f1_of(*(np.asarray(float(count.sum())) for count in counts))
        known = each[np.isfinite(each)]
        values = {
            "f1_micro": float(micro),
            "f1_macro": float(known.mean()) if len(known) else np.nan,
            "exact_match": float(exact.mean()),
        }
        return Measurements(losses, values, float(np.mean(losses)), 1.0, exact)
