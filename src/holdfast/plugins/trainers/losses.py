"""Losses row by row from a foreign model's outputs and labels.

A trainer knows the mean loss of a batch; the guard needs the loss of every row. Which formula the
model uses is not guessed from its name: of those that fit the shapes, the one whose weighted mean
is the model's own loss on the same batch is taken, and where none is, ``find_formula`` says so.

| formula | logits, labels | loss of a row | its weight in the mean |
|---|---|---|---|
| ``classes`` | [n, C], [n] whole | cross-entropy | 1 |
| ``several`` | [n, C], [n, C] | mean binary cross-entropy over the C labels | 1 |
| ``number`` | [n] or [n, k], the same | mean squared error | 1 |
| ``next tokens`` | [n, T, V], [n, T] | mean cross-entropy, logit before the label | its tokens |
| ``tokens`` | [n, T, V], [n, T] | mean cross-entropy, each logit at its label | its tokens |

Tokens whose label is −100 take no part; a row without any has the loss 0 and the weight 0. Losses
are float32, in nats but for ``number``.
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
from holdfast.tasks.generation.losses import (
    IGNORED,
    mean_of_each,
    measure_tokens,
    right_tokens,
    token_losses,
)
from holdfast.training.task import Measurements

AGREES = {torch.float32: 2e-5, torch.float64: 2e-5}
AGREES_IN_HALF = 2e-2
SHIFTED = "next tokens"


@dataclass(frozen=True, slots=True)
class Formula:
    """One line of the table above, by its name."""

    name: str

    @property
    def classifies(self) -> bool:
        return self.name == "classes"

    @property
    def writes(self) -> bool:
        return self.name in ("tokens", SHIFTED)

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of each row [n], float32."""
        logits = logits.float()
        if self.classifies:
            return functional.cross_entropy(logits, labels, reduction="none")
        if self.name == "several":
            entropy = functional.binary_cross_entropy_with_logits
            return entropy(logits, labels.float(), reduction="none").mean(dim=1)
        if self.name == "number":
            wanted = labels.float().reshape(len(labels), -1)
            return (logits.reshape(wanted.shape) - wanted).square().mean(dim=1)
        flat, expected, counts = self._targets(logits, labels)
        return _zero_without(counts, mean_of_each(token_losses(flat, expected), counts))

    def keep(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """What numbers are made of beside the losses [n, …]: logits, or tokens and right ones."""
        if self.writes:
            flat, expected, counts = self._targets(logits, labels)
            return _zero_without(counts[:, None], right_tokens(flat, expected, counts))
        return logits.float().reshape(len(labels), -1)

    def mean(self, logits: torch.Tensor, labels: torch.Tensor) -> float:
        """The weighted mean over the rows: what the model itself should call its loss."""
        losses = self.losses(logits, labels)
        if not self.writes:
            return float(losses.mean())
        weights = (self._aligned(logits, labels)[1] != IGNORED).sum(dim=1)
        return float((losses * weights).sum() / weights.sum().clamp(min=1))

    def measure_answers(self, answers: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> Measurements:
        """The numbers of a snapshot from the logits and labels of one batch after the other."""
        losses: list[torch.Tensor] = []
        kept: list[torch.Tensor] = []
        for logits, labels in answers:
            losses.append(self.losses(logits, labels).cpu())
            kept.append(self.keep(logits, labels).cpu())
        return self.measure(torch.cat(losses).numpy().astype(np.float64), torch.cat(kept).numpy())

    def measure(self, losses: Floats, kept: Floats) -> Measurements:
        """Losses [n] and what was kept [n, …] to the numbers of a snapshot."""
        if self.writes:
            return measure_tokens(losses, kept)
        if not self.classifies:
            return plain(losses)
        if not len(losses):
            return Measurements(losses, {"accuracy": float("nan")}, float("nan"), 1.0, logits=kept)
        labels = recover_labels(kept, losses)
        temperature, refined = best_temperature(kept, labels)
        # Nobody's answer is right whose logits are no numbers: their first class is no choice.
        correct = (kept.argmax(axis=1) == labels) & np.isfinite(losses)
        metrics = {"accuracy": float(correct.mean())}
        return Measurements(losses, metrics, refined, temperature, correct, kept)

    def _targets(
        self, logits: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits and labels of the target tokens, row after row, and how many each row has."""
        aligned, wanted = self._aligned(logits, labels)
        mask = wanted != IGNORED
        return aligned[mask], wanted[mask], mask.sum(dim=1)

    def _aligned(
        self, logits: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return (logits[:, :-1], labels[:, 1:]) if self.name == SHIFTED else (logits, labels)


def _zero_without(counts: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The values of rows that have targets; 0 for a row without any, of which there is no mean."""
    return torch.where(counts > 0, values, torch.zeros_like(values))


def plain(losses: Floats) -> Measurements:
    """Numbers of losses about which nothing more is known; NaN without rows."""
    mean = float(np.mean(losses)) if len(losses) else float("nan")
    return Measurements(losses, {}, mean, 1.0)


def find_formula(logits: Any, labels: Any, model_loss: float) -> Formula | None:
    """The formula whose mean over this batch is the model's own, ``model_loss``; ``None`` where
    none is.

    Within 2·10⁻⁵ of it (a fiftieth where the logits are of half precision, in which some models
    add up the loss). Rows of one class alone cannot tell weighted classes from plain ones.
    """
    if not (torch.is_tensor(logits) and torch.is_tensor(labels)) or not np.isfinite(model_loss):
        return None
    # Near 0 the rounding of a loss is no share of it, so there the bound is an absolute one.
    near = AGREES.get(logits.dtype, AGREES_IN_HALF)
    for formula in _fitting(logits, labels):
        if abs(formula.mean(logits, labels) - model_loss) <= near * max(abs(model_loss), 1e-3):
            return formula
    return None


def aligned_formula(logits: torch.Tensor, labels: torch.Tensor) -> Formula:
    """The formula that the shapes allow, where nobody knows the model's own loss; tokens stand at
    their labels, and several labels are 0 or 1. Raises ``DataError`` where none fits."""
    # Backwards: with no loss to decide, ``tokens`` comes before ``next tokens``, and ``number``
    # before ``several``.
    for formula in reversed(_fitting(logits, labels)):
        marks = ((labels == 0) | (labels == 1)).all()
        if formula.name != "number" or labels.dim() < 2 or not marks:
            return formula
    if logits.shape == labels.shape:
        return Formula("several")
    raise DataError(
        "logits and labels",
        "fit no loss that the guard knows",
        (tuple(logits.shape), tuple(labels.shape)),
        "Logits are [n, classes] or [n, T, classes], labels [n] or [n, T]; numbers have one shape.",
    )


def _fitting(logits: torch.Tensor, labels: torch.Tensor) -> list[Formula]:
    """Those whose shapes fit, the likelier first."""
    whole = not labels.is_floating_point()
    if logits.dim() == 3 and whole and labels.shape == logits.shape[:2]:
        # A text of one token has no next one.
        return [Formula(SHIFTED), Formula("tokens")] if logits.shape[1] > 1 else [Formula("tokens")]
    if logits.dim() == 2 and whole and labels.dim() == 1 and logits.shape[1] > 1:
        return [Formula("classes")]
    if logits.dim() == 2 and labels.shape == logits.shape and labels.dim() == 2:
        return [Formula("several"), Formula("number")]
    return [Formula("number")] if logits.numel() == labels.numel() else []
