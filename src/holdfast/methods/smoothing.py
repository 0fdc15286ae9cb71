"""Label smoothing: a share ε of the target goes to all classes evenly (1512.00567).

    ℓ = (1 − ε) · CE(y) + ε · mean_k CE(k)

Damps over-confident logits. Only the training loss is smoothed; every loss that is shown or
decided on is plain cross-entropy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def smooth(losses: torch.Tensor, logits: torch.Tensor, share: float) -> torch.Tensor:
    """Smoothed per-example losses [batch] from plain ones and ``logits`` [batch, classes];
    ``share`` in [0, 1)."""
    uniform = -logits.float().log_softmax(dim=1).mean(dim=1)
    return (1 - share) * losses + share * uniform


class LabelSmoothing:
    """The loss term that smooths the targets of a batch."""

    name = "label_smoothing"

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(
        self, batch: dict[str, torch.Tensor], output: Any, losses: torch.Tensor
    ) -> torch.Tensor:
        return smooth(losses, output.logits, self.share)
