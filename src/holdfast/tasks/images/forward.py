"""Pictures through a saved model, in its saved precision: the only numbers that are reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from holdfast.core.records import Outputs
from holdfast.stats.temperature import losses_at
from holdfast.tasks.images.losses import ImageClassification, encode_images
from holdfast.training.batches import by_length

if TYPE_CHECKING:
    import torch
    from transformers import BaseImageProcessor

    from holdfast.data.table import Table

TOKENS = 4096


class VisionModel(Protocol):
    """An image classifier that is asked: ``network`` maps ``pixel_values`` to logits."""

    @property
    def network(self) -> Callable[..., torch.Tensor]: ...

    @property
    def processor(self) -> Any: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def channels(self) -> int: ...


def answer_images(model: VisionModel, table: Table) -> Outputs:
    """The model's logits for every picture of ``table``, float32, in the table's order. A row
    without a known label (-1) has a NaN loss."""
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
    with torch.inference_mode():
        for chosen in by_length(examples.lengths, np.arange(len(examples)), tokens):
            pixels = task.collate(examples, chosen)["pixel_values"]
            logits[chosen] = network(pixel_values=pixels).float().numpy()
    groups = np.asarray(table.column("group"), dtype=object) if table.has_groups else None
    known = examples.labels >= 0
    losses = np.where(known, losses_at(logits, np.maximum(examples.labels, 0), 1.0), np.nan)
    return Outputs(examples.rows, examples.labels, logits, losses, groups)
