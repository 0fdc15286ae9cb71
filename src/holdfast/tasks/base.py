"""What the loop asks of a task; the loop itself has no branch on the kind of task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from holdfast.core.records import Floats, Ints

if TYPE_CHECKING:
    import torch


class Examples(Protocol):
    """Encoded rows: how many, and how long each is in the unit that costs time (tokens)."""

    @property
    def lengths(self) -> Ints: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Measured:
    """One set of rows, measured in evaluation mode. ``losses`` [n] in nats; ``metrics`` plain
    numbers; ``refined_loss`` the mean loss after ``temperature``, NaN where a task has none."""

    losses: Floats
    metrics: dict[str, float]
    refined_loss: float
    temperature: float
    correct: npt.NDArray[Any] | None = None
    logits: Floats | None = None


class Task(Protocol):
    """Rows to batches, model output to per-example losses, outputs to numbers."""

    @property
    def name(self) -> str: ...

    def collate(self, examples: Any, positions: Sequence[int] | Ints) -> dict[str, torch.Tensor]:
        """A padded batch of these rows: the model's inputs and ``labels``."""

    def losses(self, output: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Per-example losses [batch] of a training or evaluation batch, float32, in nats."""

    def keep(self, output: Any) -> torch.Tensor:
        """What to keep of an evaluation batch, one line per example."""

    def measure(self, losses: Floats, kept: Floats, examples: Any) -> Measured:
        """Losses and kept outputs of a whole set, in row order, to numbers."""
