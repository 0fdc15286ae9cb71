"""Image classification: pictures in, one class out, cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.tasks.base import Batch, Measured
from holdfast.tasks.classification import (
    Metrics,
    Output,
    class_losses,
    classify,
    join_outputs,
    measure_classes,
)
from holdfast.tasks.pixels import Pixels

if TYPE_CHECKING:
    import torch

    from holdfast.data.table import Table


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """Pictures with a class index each. Every picture has the same size, so ``lengths`` [n] are all
    the cost of one, in units of 16 × 16 pixels."""

    pixels: Pixels
    rows: Ints
    labels: Ints

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> Ints:
        return np.full(len(self.rows), self.pixels.cost, dtype=np.int64)


def encode_images(table: Table, processor: Any, channels: int) -> EncodedImages:
    """Decode every picture of ``table`` through the model's processor, once where they fit."""
    return EncodedImages(
        Pixels(table.column("path"), processor, channels),
        np.asarray(table.column("row"), dtype=np.int64),
        np.asarray(table.column("label"), dtype=np.int64),
    )


@dataclass(frozen=True)
class ImageClassification:
    """The task's side of the loop. ``metrics`` are named functions of ``Outputs`` that every
    snapshot computes on both sets."""

    classes: tuple[str, ...]
    metrics: Metrics = field(default_factory=dict)
    name: str = "image-classification"

    def collate(self, examples: EncodedImages, positions: Sequence[int] | Ints) -> Batch:
        """``pixel_values`` [batch, channels, H, W] and ``labels`` [batch]."""
        import torch

        chosen = np.asarray(positions, dtype=np.int64)
        labels = torch.from_numpy(examples.labels[chosen])
        return {"pixel_values": examples.pixels(chosen), "labels": labels}

    def forward(self, network: Any, batch: Batch) -> Output:
        """Logits and features; see ``classification.classify``."""
        return classify(network, batch)

    def losses(self, output: Any, batch: Batch) -> torch.Tensor:
        """Cross-entropy per row [batch], in nats."""
        return class_losses(output, batch)

    def weights(self, examples: EncodedImages, positions: Sequence[int] | Ints) -> Floats:
        """Every row weighs the same."""
        return np.ones(len(positions))

    def join(self, outputs: Sequence[Any], batches: Sequence[Batch]) -> tuple[Output, Batch]:
        """See ``classification.join_outputs``."""
        return join_outputs(outputs, batches)

    def keep(self, output: Any, batch: Batch) -> torch.Tensor:
        """The logits [batch, classes]."""
        logits: torch.Tensor = output.logits.float()
        return logits

    def measure(
        self, losses: Floats, kept: Floats, examples: EncodedImages, positions: Sequence[int] | Ints
    ) -> Measured:
        """See ``classification.measure_classes``."""
        return measure_classes(losses, kept, examples, positions, self.metrics)
