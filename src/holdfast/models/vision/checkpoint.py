"""A saved image classifier's folder → the classifier, through plain libraries alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from holdfast.models.encoders.checkpoint import saved_model
from holdfast.models.vision.vision import load_processor


class PlainVision(nn.Module):
    """A plain image classifier whose ``forward`` returns logits [B, C]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=inputs["pixel_values"]).logits
        return logits


@dataclass(frozen=True)
class SavedVision:
    """What ``load_saved_vision`` gives; ``classes`` in the order of the logits."""

    network: PlainVision
    processor: Any
    classes: tuple[str, ...]

    @property
    def channels(self) -> int:
        """Colour channels that the model reads: 1 or 3."""
        config: Any = self.network.model.config
        return int(getattr(config, "num_channels", 3))


def load_saved_vision(folder: Path) -> SavedVision:
    """Load a folder that ``VisionClassifier.save`` wrote with plain Transformers classes alone, in
    float32 and evaluation mode. Raises ``ModelError`` when it is no such folder."""
    from transformers import AutoModelForImageClassification

    rule = "cannot be loaded as an image classifier"
    model, classes = saved_model(folder, AutoModelForImageClassification, rule)
    return SavedVision(PlainVision(model).eval(), load_processor(folder), classes)
