"""Supervised contrast: pull rows of one class together, push the classes apart (2004.11362).

For unit vectors z and temperature τ, over a batch B, the loss of anchor i with positives
P(i) = {p ∈ B, p ≠ i, y_p = y_i} is

    ℓ_i = − 1/|P(i)| · Σ_{p ∈ P(i)} log( exp(z_i·z_p ÷ τ) ÷ Σ_{a ∈ B, a ≠ i} exp(z_i·z_a ÷ τ) )

which is L_out of the paper. It uses every pair of rows, which is why it learns more from 100
rows than cross-entropy does. Unlike SetFit (2209.11055), which feeds pairs one by one, a batch
of n rows gives n·(n − 1) pairs for n forward passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def contrast(
    features: torch.Tensor, labels: torch.Tensor, temperature: float = 0.1
) -> torch.Tensor:
    """Per-anchor loss [batch], in nats; 0 for an anchor without a positive in the batch.

    ``features`` [batch, width] of any length (they are normalised here), ``labels`` [batch].
    ``temperature`` above 0; 0.05 to 0.3 are usual.
    """
    import torch

    unit = torch.nn.functional.normalize(features.float(), dim=1)
    similarity = unit @ unit.T / temperature
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positives = (labels[:, None] == labels[None, :]) & ~itself
    log_share = similarity - torch.logsumexp(
        similarity.masked_fill(itself, float("-inf")), dim=1, keepdim=True
    )
    count = positives.sum(dim=1)
    return -(log_share * positives).sum(dim=1) / count.clamp(min=1)


class Contrast:
    """The loss term that replaces the losses of a batch by their contrast."""

    name = "contrast"

    def __init__(self, temperature: float = 0.1) -> None:
        self.temperature = temperature

    def __call__(
        self, batch: dict[str, torch.Tensor], output: Any, losses: torch.Tensor
    ) -> torch.Tensor:
        return contrast(output.features, batch["labels"], self.temperature)
