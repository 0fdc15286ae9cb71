"""Losses of target tokens: per row, how many were right, and the numbers a snapshot keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from holdfast.core.records import Floats
from holdfast.tasks.base import Measured

if TYPE_CHECKING:
    import torch

IGNORED = -100
# What a snapshot of a generating task measures, and whether more of it is better.
WATCHED = {"token_loss": False, "perplexity": False, "token_accuracy": True}


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each token [batch, T] in nats, float32; 0 where ``labels`` are −100."""
    import torch

    flat = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), reduction="none", ignore_index=IGNORED
    )
    return flat.view(labels.shape)


def row_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Each row's mean over its target tokens [batch]; 0 for a row without any."""
    counts = (labels != IGNORED).sum(dim=1).clamp(min=1)
    return token_losses(logits, labels).sum(dim=1) / counts


def right_tokens(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """How many target tokens each row has, and how many of them were the likeliest: [batch, 2]."""
    import torch

    wanted = labels != IGNORED
    right = (logits.argmax(dim=-1) == labels) & wanted
    return torch.stack([wanted.sum(dim=1), right.sum(dim=1)], dim=1).float()


def measure_tokens(losses: Floats, kept: Floats) -> Measured:
    """``token_loss`` (mean over all target tokens), ``perplexity`` = exp of it, and
    ``token_accuracy``, from the rows' mean losses [n] and ``right_tokens`` [n, 2]; NaN without
    rows. A generating task has no temperature, so the refined loss is the mean loss."""
    if not len(losses):
        nothing = dict.fromkeys(WATCHED, float("nan"))
        return Measured(losses, nothing, float("nan"), 1.0)
    tokens, right = kept[:, 0].astype(np.float64), kept[:, 1].astype(np.float64)
    total = max(1.0, float(tokens.sum()))
    loss = float((losses * tokens).sum()) / total
    with np.errstate(over="ignore"):
        perplexity = float(np.exp(loss))
    metrics = {"token_loss": loss, "perplexity": perplexity,
               "token_accuracy": float(right.sum()) / total}  # fmt: skip
    return Measured(losses, metrics, float(np.mean(losses)), 1.0)
