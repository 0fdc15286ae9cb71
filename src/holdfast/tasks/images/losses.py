"""Image classification: pictures in, one class out, cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from holdfast.core.records import Ints
from holdfast.tasks.classes.losses import Classification, Metrics
from holdfast.tasks.images.pixels import PixelTensors
from holdfast.training.task import Batch

if TYPE_CHECKING:
    from transformers import BaseImageProcessor

    from holdfast.data.table import Table


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """Pictures with a class index each. Every picture has the same size, so ``lengths`` [n] are all
    the cost of one, in units of 16 × 16 pixels. ``places`` [n] are theirs among the ``pixels``,
    which sides of one table share."""

    pixels: PixelTensors
    places: Ints
    rows: Ints
    labels: Ints

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> Ints:
        return np.full(len(self.rows), self.pixels.cost, dtype=np.int64)

    def take(self, positions: Ints) -> EncodedImages:
        return EncodedImages(
            self.pixels, self.places[positions], self.rows[positions], self.labels[positions]
        )


def encode_images(table: Table, processor: BaseImageProcessor, channels: int) -> EncodedImages:
    """Decode every picture of ``table`` through the model's processor, once where they fit."""
    return EncodedImages(
        PixelTensors(table.column("path"), processor, channels),
        np.arange(len(table), dtype=np.int64),
        np.asarray(table.column("row"), dtype=np.int64),
        np.asarray(table.column("label"), dtype=np.int64),
    )


@dataclass(frozen=True)
class ImageClassification(Classification):
    """The task's side of the loop; see ``Classification``."""

    classes: tuple[str, ...]
    metrics: Metrics = field(default_factory=dict)
    name: str = "image-classification"

    def collate(self, examples: EncodedImages, positions: Sequence[int] | Ints) -> Batch:
        """``pixel_values`` [batch, channels, H, W] and ``labels`` [batch]; of mixed pictures also
        the classes ``partners`` [batch] of what is mixed in, and the ``shares`` [batch] that are of
        the label."""
        import torch

        chosen = np.asarray(positions, dtype=np.int64)
        labels = torch.from_numpy(examples.labels[chosen])
        batch = {"pixel_values": examples.pixels(examples.places[chosen]), "labels": labels}
        for name in ("partners", "shares"):
            mixed = getattr(examples, name, None)
            if mixed is not None:
                batch[name] = torch.from_numpy(mixed[chosen])
        return batch
