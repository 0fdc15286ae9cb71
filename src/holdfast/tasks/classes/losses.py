"""Single-label classification losses: cross-entropy over classes, whatever the rows are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.records import Floats, Ints, Outputs
from holdfast.stats.temperature import best_temperature
from holdfast.training.task import Batch, ClassifierOutput, Measurements, classify

if TYPE_CHECKING:
    import torch

    from holdfast.models.base import Network
    from holdfast.training.task import Examples


Metrics = Mapping[str, Callable[[Outputs], float]]


class Classification(ABC):
    """The task as the training loop sees it, without the batches, which each task with its own kind
    of rows builds.

    ``metrics`` are named functions of ``Outputs`` that every evaluation computes on both sets.
    """

    metrics: Metrics

    @abstractmethod
    def collate(self, examples: Any, positions: Sequence[int] | Ints) -> Batch:
        """A padded batch of these rows, ``labels`` among its tensors."""

    def forward(self, network: Network, batch: Batch) -> ClassifierOutput:
        """Logits and features; see ``classify``."""
        return classify(network, batch)

    def losses(self, output: ClassifierOutput, batch: Batch) -> torch.Tensor:
        """Cross-entropy per row [batch], in nats, computed in float32."""
        import torch

        return torch.nn.functional.cross_entropy(
            output.logits.float(), batch["labels"], reduction="none"
        )

    def weights(self, examples: Examples, positions: Sequence[int] | Ints) -> Floats:
        """Every row has weight 1, except added rows that came with a weight."""
        weights: Floats | None = getattr(examples, "weights", None)
        return np.ones(len(positions)) if weights is None else weights[positions]

    def join(
        self, outputs: Sequence[ClassifierOutput], batches: Sequence[Batch]
    ) -> tuple[ClassifierOutput, Batch]:
        """Concatenate logits, features and labels of several parts."""
        import torch

        output = ClassifierOutput(
            torch.cat([o.logits for o in outputs]), torch.cat([o.features for o in outputs])
        )
        return output, {"labels": torch.cat([batch["labels"] for batch in batches])}

    def keep(self, output: ClassifierOutput, batch: Batch) -> torch.Tensor:
        """The logits [batch, classes]."""
        logits: torch.Tensor = output.logits.float()
        return logits

    def measure(
        self, losses: Floats, kept: Floats, examples: Any, positions: Sequence[int] | Ints
    ) -> Measurements:
        """Accuracy, the watched metrics, and the calibrated loss (after temperature scaling); all
        NaN when there are no rows.
        """
        if not len(losses):
            empty = {name: float("nan") for name in ("accuracy", *self.metrics)}
            return Measurements(losses, empty, float("nan"), 1.0, np.zeros(0, dtype=bool), kept)
        indices = np.asarray(positions, dtype=np.int64)
        outputs = Outputs(examples.rows[indices], examples.labels[indices], kept, losses)
        correct = outputs.predictions == outputs.labels
        values = {"accuracy": float(correct.mean())}
        values.update({name: compute(outputs) for name, compute in self.metrics.items()})
        temperature, refined = best_temperature(kept, outputs.labels)
        return Measurements(losses, values, refined, temperature, correct, kept)
