"""A saved image classifier's folder → the classifier, through plain libraries alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from holdfast.core.door import door
from holdfast.core.errors import ModelError
from holdfast.models.adapter_save import is_adapter_folder, load_adapted, read_facts
from holdfast.models.quiet import quiet_transformers
from holdfast.models.source import read_config
from holdfast.models.vision import load_processor
from holdfast.models.whole import SAVED, read_saved


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

    if is_adapter_folder(folder):
        adapted, known = _load_adapter(folder)
        return SavedVision(PlainVision(adapted).eval(), load_processor(folder), known)
    read_config(str(folder), folder)
    rule = "cannot be loaded as an image classifier"
    with door(str(folder), ModelError, rule, SAVED), quiet_transformers():
        model = read_saved(AutoModelForImageClassification, folder)
    with door(str(folder), ModelError, "does not name its classes from 0 on"):
        names = model.config.id2label
        classes = tuple(str(names[index]) for index in range(len(names)))
    return SavedVision(PlainVision(model).eval(), load_processor(folder), classes)


def _load_adapter(folder: Path) -> tuple[Any, tuple[str, ...]]:
    """The pretrained model with the adapter on it, through plain PEFT, and the classes."""
    from transformers import AutoModelForImageClassification

    classes = tuple(map(str, read_facts(folder).get("classes") or ()))
    names = dict(enumerate(classes))
    model = load_adapted(
        folder,
        AutoModelForImageClassification,
        num_labels=len(classes),
        id2label=names,
        label2id={name: index for index, name in names.items()},
        ignore_mismatched_sizes=True,
    )
    return model, classes
