"""Token losses: cross-entropy of target tokens, correct tokens per row, and an evaluation's
metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from holdfast.core.records import Floats
from holdfast.core.shapes import MAX_NUMBER
from holdfast.training.task import Measurements, row_means

if TYPE_CHECKING:
    import torch


# The index that PyTorch's cross-entropy ignores by default.
IGNORED = -100
# What an evaluation of a generating task measures.
WATCHED = ("token_loss", "perplexity", "token_accuracy")


@dataclass(frozen=True, slots=True)
class ChunkedOutput:
    """Output of a forward pass that kept no logits: ``losses`` [targets] in nats, and whether each
    target was the most probable token (``right`` [targets]).
    """

    losses: torch.Tensor
    right: torch.Tensor


def token_losses(logits: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each target token [targets] in nats, float32; ``logits`` [targets, V]."""
    import torch

    return torch.nn.functional.cross_entropy(logits.float(), expected, reduction="none")


def right_tokens(
    logits: torch.Tensor, expected: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """How many target tokens each row has, and how many of them were the most probable: [batch,
    2].
    """
    return right_of_each(logits.argmax(dim=-1) == expected, counts)


def right_of_each(right: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The same from ``right`` [targets], whether each was."""
    import torch

    # Mean times count: ``segment_reduce`` has one fixed order of summing, also on a GPU.
    count = row_means(right.float(), counts) * counts
    return torch.stack([counts.float(), count], dim=1)


def perplexities(token_losses: Floats) -> Floats:
    """exp of mean losses per token, in nats; infinite above ``MAX_NUMBER``, the largest number that
    a run's files hold."""
    with np.errstate(over="ignore"):
        found = np.exp(token_losses)
    return np.where(found > MAX_NUMBER, np.inf, found)


def measure_tokens(losses: Floats, kept: Floats) -> Measurements:
    """``token_loss`` (mean over all target tokens), ``perplexity`` = exp of it, and
    ``token_accuracy``, from the rows' mean losses [n] and ``right_tokens`` [n, 2]; NaN without
    rows. A generating task has no temperature, so the calibrated loss is the loss.
    """
    if not len(losses):
        nothing = dict.fromkeys(WATCHED, float("nan"))
        none = np.zeros(0, dtype=np.int64)
        return Measurements(losses, nothing, float("nan"), 1.0, tokens=none, right=np.zeros(0))
    tokens, right = kept[:, 0].astype(np.float64), kept[:, 1].astype(np.float64)
    total = max(1.0, float(tokens.sum()))
    loss = float((losses * tokens).sum()) / total
    metrics = {
        "token_loss": loss,
        "perplexity": float(perplexities(np.array(loss))),
        "token_accuracy": float(right.sum()) / total,
    }
    token_counts = tokens.round().astype(np.int64)
    return Measurements(losses, metrics, loss, 1.0, tokens=token_counts, right=right.round())
