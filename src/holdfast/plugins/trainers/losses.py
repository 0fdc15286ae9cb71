"""Losses row by row from another trainer's outputs and labels.

A trainer knows the mean loss of a batch; the guard needs the loss of every row. The model's formula
is not guessed from its name: among the formulas that fit the shapes, ``find_formula`` takes the one
whose weighted mean is the model's own loss on the same batch; it says so where there is none.

| formula | logits, labels | loss of a row | its weight in the mean |
|---|---|---|---|
| ``classes`` | [n, C], [n] whole | cross-entropy | 1 |
| ``several`` | [n, C], [n, C] | mean binary cross-entropy over the C labels | 1 |
| ``number`` | [n] or [n, k], the same | mean squared error | 1 |
| ``next tokens`` | [n, T, V], [n, T] | mean cross-entropy, logit before the label | its tokens |
| ``tokens`` | [n, T, V], [n, T] | mean cross-entropy, each logit at its label | its tokens |

Tokens whose label is −100 take no part; a row without any has the loss 0 and the weight 0. Losses
are float32, in nats except for ``number``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from holdfast.core.errors import DataError
from holdfast.core.records import Floats
from holdfast.stats.temperature import best_temperature, recover_labels
from holdfast.tasks.generation.losses import IGNORED, measure_tokens, right_tokens, token_losses
from holdfast.training.task import Measurements, row_means

LOSS_TOLERANCE = {torch.float32: 2e-5, torch.float64: 2e-5}
HALF_PRECISION_TOLERANCE = 2e-2
NEXT_TOKENS = "next tokens"


@dataclass(frozen=True, slots=True)
class Formula:
    """One line of the table above, by its name."""

    name: str

    @property
    def is_classification(self) -> bool:
        return self.name == "classes"

    @property
    def is_generative(self) -> bool:
        return self.name in ("tokens", NEXT_TOKENS)

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of each row [n], float32."""
        logits = logits.float()
        if self.is_classification:
            return functional.cross_entropy(logits, labels, reduction="none")
        if self.name == "several":
            entropy = functional.binary_cross_entropy_with_logits
            return entropy(logits, labels.float(), reduction="none").mean(dim=1)
        if self.name == "number":
            targets = labels.float().reshape(len(labels), -1)
            return (logits.reshape(targets.shape) - targets).square().mean(dim=1)
        token_logits, token_labels, counts = self._targets(logits, labels)
        return _zero_without_targets(
            counts, row_means(token_losses(token_logits, token_labels), counts)
        )

    def metric_inputs(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The input of metrics other than losses [n, …]: logits, or numbers of tokens and correct
        tokens.
        """
        if self.is_generative:
            flat, expected, counts = self._targets(logits, labels)
            return _zero_without_targets(counts[:, None], right_tokens(flat, expected, counts))
        return logits.float().reshape(len(labels), -1)

    def mean(self, logits: torch.Tensor, labels: torch.Tensor) -> float:
        """The weighted mean over the rows, which should equal the model's own loss."""
        losses = self.losses(logits, labels)
        if not self.is_generative:
            return float(losses.mean())
        weights = (self._aligned(logits, labels)[1] != IGNORED).sum(dim=1)
        return float((losses * weights).sum() / weights.sum().clamp(min=1))

    def measure_batches(self, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> Measurements:
        """The measurements of an evaluation from the logits and labels of consecutive batches."""
        losses: list[torch.Tensor] = []
        metric_inputs: list[torch.Tensor] = []
        for logits, labels in batches:
            losses.append(self.losses(logits, labels).cpu())
            metric_inputs.append(self.metric_inputs(logits, labels).cpu())
        return self.measure(
            torch.cat(losses).numpy().astype(np.float64), torch.cat(metric_inputs).numpy()
        )

    def measure(self, losses: Floats, metric_inputs: Floats) -> Measurements:
        """The measurements of an evaluation from losses [n] and metric inputs [n, …]."""
        if self.is_generative:
            return measure_tokens(losses, metric_inputs)
        if not self.is_classification:
            return losses_only(losses)
        if not len(losses):
            return Measurements(
                losses, {"accuracy": float("nan")}, float("nan"), 1.0, logits=metric_inputs
            )
        labels = recover_labels(metric_inputs, losses)
        temperature, refined = best_temperature(metric_inputs, labels)
        # A row with non-finite logits is never correct: their first class is not a prediction.
        correct = (metric_inputs.argmax(axis=1) == labels) & np.isfinite(losses)
        metrics = {"accuracy": float(correct.mean())}
        return Measurements(losses, metrics, refined, temperature, correct, metric_inputs)

    def _targets(
        self, logits: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits and labels of the target tokens, row after row, and how many each row has."""
        aligned, target_labels = self._aligned(logits, labels)
        mask = target_labels != IGNORED
        return aligned[mask], target_labels[mask], mask.sum(dim=1)

    def _aligned(
        self, logits: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return (logits[:, :-1], labels[:, 1:]) if self.name == NEXT_TOKENS else (logits, labels)


def _zero_without_targets(counts: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The values of rows that have targets; 0 for a row without any, whose mean is undefined."""
    return torch.where(counts > 0, values, torch.zeros_like(values))


def losses_only(losses: Floats) -> Measurements:
    """Measurements where only losses are known; NaN without rows."""
    mean = float(np.mean(losses)) if len(losses) else float("nan")
    return Measurements(losses, {}, mean, 1.0)


def find_formula(logits: Any, labels: Any, model_loss: float) -> Formula | None:
    """The formula whose mean over this batch is the model's own, ``model_loss``; ``None`` where
    none is.

    Within 2·10⁻⁵ of it (a fiftieth where the logits are in half precision, in which some models sum
    the loss). Rows of only one class cannot distinguish weighted classes from plain ones.
    """
    if not (torch.is_tensor(logits) and torch.is_tensor(labels)) or not np.isfinite(model_loss):
        return None
    # Near 0 rounding errors are not proportional to the loss, so there the bound is absolute.
    tolerance = LOSS_TOLERANCE.get(logits.dtype, HALF_PRECISION_TOLERANCE)
    for formula in _candidate_formulas(logits, labels):
        if abs(formula.mean(logits, labels) - model_loss) <= tolerance * max(abs(model_loss), 1e-3):
            return formula
    return None


def aligned_formula(logits: torch.Tensor, labels: torch.Tensor) -> Formula:
    """The formula that the shapes allow, where the model's own loss is unknown; tokens are aligned
    with their labels, and several labels are 0 or 1. Raises ``DataError`` where none fits.
    """
    # Backwards: with no loss to decide, ``tokens`` comes before ``next tokens``, and ``number``
    # before ``several``.
    for formula in reversed(_candidate_formulas(logits, labels)):
        is_binary = ((labels == 0) | (labels == 1)).all()
        if formula.name != "number" or labels.dim() < 2 or not is_binary:
            return formula
    if logits.shape == labels.shape:
        return Formula("several")
    raise DataError(
        "logits and labels",
        "do not fit any loss that the guard knows",
        (tuple(logits.shape), tuple(labels.shape)),
        "Logits are [n, classes] or [n, T, classes], labels [n] or [n, T]; numbers have one shape.",
    )


def _candidate_formulas(logits: torch.Tensor, labels: torch.Tensor) -> list[Formula]:
    """The formulas whose shapes fit, the more probable first."""
    integer_labels = not labels.is_floating_point()
    if logits.dim() == 3 and integer_labels and labels.shape == logits.shape[:2]:
        # A text of one token has no next one.
        return (
            [Formula(NEXT_TOKENS), Formula("tokens")]
            if logits.shape[1] > 1
            else [Formula("tokens")]
        )
    if logits.dim() == 2 and integer_labels and labels.dim() == 1 and logits.shape[1] > 1:
        return [Formula("classes")]
    if logits.dim() == 2 and labels.shape == logits.shape and labels.dim() == 2:
        return [Formula("several"), Formula("number")]
    return [Formula("number")] if logits.numel() == labels.numel() else []
