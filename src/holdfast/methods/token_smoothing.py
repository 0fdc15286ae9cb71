"""Label smoothing over target tokens: a share ε of each token's target goes to the whole
vocabulary evenly (1512.00567).

    ℓ = (1 − ε) · CE(y) + ε · mean_k CE(k), averaged over a row's target tokens

``smoothing.py`` does the same for one class a row. Only the training loss is smoothed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class TokenSmoothing:
    """The loss term that smooths the targets of a batch; ``output`` is logits [targets, V], row by
    row, and ``counts`` of the batch says how many targets each row has."""

    name = "token_smoothing"

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(
        self, batch: dict[str, torch.Tensor], output: Any, losses: torch.Tensor
    ) -> torch.Tensor:
        import torch

        uniform = -output.float().log_softmax(dim=-1).mean(dim=-1)
        mean = torch.segment_reduce(uniform, "mean", lengths=batch["counts"])
        smoothed: torch.Tensor = (1 - self.share) * losses + self.share * mean
        return smoothed
