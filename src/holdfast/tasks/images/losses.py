"""Image classification losses: cross-entropy over classes; batches for the loop, and outputs of a
saved model in its saved precision. Reported numbers come only from those outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from holdfast.contract.predictions import groups_of
from holdfast.core.records import Ints, Outputs
from holdfast.models.compute.device import on_best_device
from holdfast.stats.temperature import losses_at
from holdfast.tasks.classes.losses import Classification, Metrics
from holdfast.tasks.images.pixels import PixelTensors
from holdfast.training.plan import batches_by_length
from holdfast.training.task import Batch, device_batch

if TYPE_CHECKING:
    import torch
    from transformers import BaseImageProcessor

    from holdfast.data.table import Table


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """Images with a class index each.

    Every image has the same size, so ``lengths`` [n] are all the cost of one, in units of 16 × 16
    pixels. ``places`` [n] are their positions among the ``pixels``, which the splits of one table
    share.
    """

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
    """Decode every image of ``table`` through the model's processor, once where they fit."""
    return EncodedImages(
        PixelTensors(table.column("path"), processor, channels),
        np.arange(len(table), dtype=np.int64),
        np.asarray(table.column("row"), dtype=np.int64),
        np.asarray(table.column("label"), dtype=np.int64),
    )


@dataclass(frozen=True)
class ImageClassification(Classification):
    """The task as the training loop sees it; see ``Classification``."""

    classes: tuple[str, ...]
    metrics: Metrics = field(default_factory=dict)
    name: str = "image-classification"

    def collate(self, examples: EncodedImages, positions: Sequence[int] | Ints) -> Batch:
        """``pixel_values`` [batch, channels, H, W] and ``labels`` [batch].

        For mixed images also the classes ``partners`` [batch] of the second image, and the
        ``shares`` [batch] of the label's own image.
        """
        import torch

        indices = np.asarray(positions, dtype=np.int64)
        labels = torch.from_numpy(examples.labels[indices])
        batch = {"pixel_values": examples.pixels(examples.places[indices]), "labels": labels}
        for name in ("partners", "shares"):
            mixed = getattr(examples, name, None)
            if mixed is not None:
                batch[name] = torch.from_numpy(mixed[indices])
        return batch


TOKENS = 4096


class VisionModel(Protocol):
    """An image classifier for inference: ``network`` maps ``pixel_values`` to logits."""

    @property
    def network(self) -> Callable[..., torch.Tensor]: ...

    @property
    def processor(self) -> Any: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def channels(self) -> int: ...


def answer_images(model: VisionModel, table: Table) -> Outputs:
    """The model's logits for every image of ``table``, float32, in the table's order.

    A row without a known label (-1) has a NaN loss.
    """
    return forward_images(model.network, model.processor, model.channels, model.classes, table)


def forward_images(
    network: Callable[..., torch.Tensor],
    processor: BaseImageProcessor,
    channels: int,
    classes: tuple[str, ...],
    table: Table,
) -> Outputs:
    """As ``answer_images``, for any callable that maps ``pixel_values`` to logits."""
    import torch

    examples = encode_images(table, processor, channels)
    task = ImageClassification(classes)
    logits = np.zeros((len(examples), len(classes)), dtype=np.float32)
    tokens = max(TOKENS, examples.pixels.cost)
    with torch.inference_mode(), on_best_device(network, len(examples)) as device:
        for batch_rows in batches_by_length(examples.lengths, np.arange(len(examples)), tokens):
            pixels = device_batch(task, examples, batch_rows, device)["pixel_values"]
            logits[batch_rows] = network(pixel_values=pixels).float().cpu().numpy()
    groups = groups_of(table)
    known = examples.labels >= 0
    losses = np.where(known, losses_at(logits, np.maximum(examples.labels, 0), 1.0), np.nan)
    return Outputs(examples.rows, examples.labels, logits, losses, groups)
