"""What one forward pass of a training step said of its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.core.records import Ints
from holdfast.core.updates import Passed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class BatchLosses:
    """``rows`` [batch] positions among the training rows, their ``losses`` [batch] before any loss
    term, ``logits`` [batch, classes] and ``labels`` [batch] where the task is one of classes."""

    rows: Ints
    losses: torch.Tensor
    logits: torch.Tensor | None
    labels: torch.Tensor | None


def batch_losses_of(passed: Passed, losses: torch.Tensor) -> BatchLosses:
    """What a forward pass said; logits only where each row has one class."""
    logits, labels = getattr(passed.output, "logits", None), passed.batch.get("labels")
    one_class = (
        logits is not None
        and labels is not None
        and labels.ndim == 1
        and not labels.is_floating_point()
        and logits.ndim == 2
    )
    known = (logits, labels) if one_class else (None, None)
    return BatchLosses(passed.rows, losses.detach(), *known)
