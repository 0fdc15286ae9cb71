"""An image classifier with an adapter: to a plain PEFT folder, or merged; and back."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from holdfast.models.adapter import adapter_of
from holdfast.models.adapter_save import load_adapted, merged_state, read_facts, save_adapter

if TYPE_CHECKING:
    from holdfast.models.vision import VisionClassifier


def save_vision_adapter(
    network: VisionClassifier, folder: Path, processor: Any, temperature: float
) -> None:
    """The adapter and the last layer ÷ ``temperature``, with the processor beside them."""
    adapter = adapter_of(network)
    assert adapter is not None
    save_adapter(
        adapter,
        folder,
        processor,
        extra=_last(network, temperature),
        modules=[network.family.last],
        classes=network.classes,
    )


def merged_vision(network: VisionClassifier, config: Any, temperature: float) -> Any:
    """A plain image classifier with the adapter merged in and the last layer ÷ ``temperature``."""
    with torch.device("meta"):
        plain = type(network.backbone)(copy.deepcopy(config))
    state = merged_state(network.backbone) | _last(network, temperature)
    plain.load_state_dict(state, strict=False, assign=True)
    return plain


def load_vision_adapter(folder: Path) -> tuple[Any, tuple[str, ...]]:
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


def _last(network: VisionClassifier, temperature: float) -> dict[str, Tensor]:
    head, name = network.head, network.family.last
    return {
        f"{name}.weight": (head.weight / temperature).detach().float().cpu(),
        f"{name}.bias": (head.bias / temperature).detach().float().cpu(),
    }
