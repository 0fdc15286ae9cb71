"""Image classifiers: from a model's name and the classes to a network ready for training and its
processor; from a saved folder to the classifier, only through plain libraries."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from holdfast.core.errors import Defect, ModelError, RecipeError
from holdfast.core.files import disk_errors
from holdfast.core.packaged_models import EMBEDDED
from holdfast.core.records import Decision
from holdfast.models.adapters.save import merged_state, save_adapter
from holdfast.models.base import Adapter, Layer, LoadedModel
from holdfast.models.encoders.checkpoint import saved_model
from holdfast.models.encoders.general import architecture_of, last_linear
from holdfast.models.layers import new_head, walked_layers
from holdfast.models.loading.checks import loading
from holdfast.models.loading.options import DEFAULT_LOAD_OPTIONS, LoadOptions
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.source import find_model
from holdfast.models.loading.weights import (
    COMPUTED,
    check_classes,
    check_dropout,
    configuration,
    describe,
    load_pretrained,
    name_classes,
)
from holdfast.models.vision.families import VISION_FAMILIES, VisionFamily, image_layers

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from holdfast.models.base import Preprocessor

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
# One convolution that cuts an image into patches is next to nothing of a transformer's work.
MIN_CONVOLUTIONS = 2


class VisionClassifier(nn.Module):
    """An image classifier: ``head(dropout(features))``.

    ``backbone`` is the plain Transformers model without its last linear layer, so that ``features``
    [B, D] is that layer's exact input, whatever the architecture; ``family`` is ``None`` for one
    that is not known by name. A batch norm that is frozen stays
    in evaluation mode; one that learns keeps its running statistics up to date. ``layout`` is the
    order in memory that images are brought into (see ``use_channels_last``).
    """

    config: Any
    adapter: Adapter | None = None
    fixed: frozenset[int] = frozenset()
    new_head = True
    layout: torch.memory_format = torch.contiguous_format

    def __init__(
        self,
        plain: nn.Module,
        family: VisionFamily | None,
        classes: tuple[str, ...],
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.last = family.last if family else last_linear(plain, len(classes), "the model")
        last: Any = plain.get_submodule(self.last)
        self.backbone = plain
        self.backbone.set_submodule(self.last, nn.Identity())
        self.dropout = nn.Dropout(dropout)
        self.family = family
        self.classes = classes
        self.config = plain.config
        self.head = new_head(last.in_features, len(classes), seed)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Pixels [B, channels, H, W] → logits [B, C]."""
        logits: Tensor = self.head(self.dropout(self.features(**inputs)))
        return logits

    def features(self, **inputs: Tensor) -> Tensor:
        """The input of the last linear layer before its dropout, [B, D]."""
        pixels = inputs["pixel_values"].contiguous(memory_format=self.layout)
        features: Tensor = self.backbone(pixel_values=pixels).logits
        return features

    def layers(self) -> list[Layer]:
        """The layers in the order of the computation: embeddings, blocks, head."""
        family, body = self.family, self.backbone
        below = walked_layers(body) if family is None else image_layers(body, family)
        return [*below, Layer("head", (self.head,))]

    def train(self, mode: bool = True) -> VisionClassifier:
        """Training mode for trained layers; frozen batch norms stay as they were pretrained."""
        super().train(mode)
        for module in self.backbone.modules() if mode else ():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train(all(p.requires_grad for p in module.parameters()))
        return self

    @property
    def word_embeddings(self) -> nn.Embedding:
        """An image has none: raises ``RecipeError``."""
        rule = "names word embeddings, which an image model lacks"
        remedy = f"Layers: {', '.join(layer.name for layer in self.layers())}."
        raise RecipeError("model.freeze", rule, "words", remedy)

    def save(self, folder: Path, processor: Preprocessor, temperature: float = 1.0) -> None:
        """Write a folder that plain ``AutoModelForImageClassification`` loads, giving these logits
        ÷ ``temperature``, with the processor next to it. Raises ``Defect`` for a temperature that
        is no positive number, ``MachineError`` when the folder cannot be written."""
        if not (math.isfinite(temperature) and temperature > 0):
            raise Defect("temperature", "must be a positive number", temperature)
        adapter, name = self.adapter, self.last
        last = {
            f"{name}.weight": (self.head.weight / temperature).detach().float().cpu(),
            f"{name}.bias": (self.head.bias / temperature).detach().float().cpu(),
        }
        if adapter is not None and not adapter.spec.merge:
            save_adapter(
                adapter, folder, processor, extra=last, modules=[name], classes=self.classes
            )
            return
        layer = nn.Linear(self.head.in_features, self.head.out_features)
        _name_outputs(self.config, self.classes)
        plain: Any = self.backbone
        if adapter is not None:
            with torch.device("meta"):
                plain = type(plain)(copy.deepcopy(self.config))
            state = merged_state(self.backbone) | last
            plain.load_state_dict(state, strict=False, assign=True)
        else:
            # The network itself lends its backbone; it goes on without the last layer.
            layer.load_state_dict({"weight": last[f"{name}.weight"], "bias": last[f"{name}.bias"]})
            plain.set_submodule(name, layer)
        try:
            with disk_errors(folder), quiet_transformers():
                folder.mkdir(parents=True, exist_ok=True)
                plain.save_pretrained(folder)
                processor.save_pretrained(folder)
        finally:
            plain.set_submodule(name, nn.Identity())


def use_channels_last(network: nn.Module) -> Decision | None:
    """Lay out the weights of a convolutional network with the channels of a pixel side by side, in
    place, and have it do the same with its images (``network.layout``); ``None``, and nothing done,
    for any other network.

    The same numbers, up to rounding, in less time: oneDNN, which multiplies for convolutions on a
    processor, works in this order; from PyTorch's usual one (a whole image for each channel) it
    copies every input and output. The logical shape of every tensor stays as it is, and a saved
    folder is the usual one.
    """
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    if len(convolutions) < MIN_CONVOLUTIONS or not hasattr(network, "layout"):
        return None
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.layout = torch.channels_last  # type: ignore[assignment]
    because = "convolutions on a CPU take about an eighth less time"
    return Decision("memory layout", "channels last", because)


@dataclass(frozen=True)
class LoadedVision(LoadedModel):
    """What ``load_vision`` gives. ``tokenizer`` is the image processor (PIL back end), under the
    name that every kind of task uses; ``max_length`` is ``None``: images have no length."""

    network: VisionClassifier

    @property
    def channels(self) -> int:
        """Colour channels that the model reads: 1 or 3."""
        return _channels(self.network.config)


def load_vision(
    name: str, classes: Sequence[str], options: LoadOptions = DEFAULT_LOAD_OPTIONS
) -> LoadedVision:
    """Load a pretrained image model and put a new classification head on it, in float32 and
    evaluation mode.

    Parameters
    ----------
    name : a folder, or a hub model's name.
    classes : the class names in the order of the logits; at least two, all different.
    options : the dropout is before the head, and ``None`` is none; no code of the model's own is
        run.

    Raises
    ------
    ModelError : the model cannot be found, read or fitted to the task.
    RecipeError : a setting is out of its range.
    """
    from transformers import AutoModelForImageClassification

    if name == EMBEDDED:
        raise ModelError(
            "model.name",
            "is the embedded text model, but images need an image model",
            name,
            "Name a folder or a hub model with --model, e.g. microsoft/resnet-50 or "
            "google/vit-base-patch16-224-in21k.",
        )
    folders = "Check the folders: a classifier needs at least two classes."
    check_classes(classes, 2, folders)
    check_dropout(options.dropout)
    source = find_model(
        name,
        revision=options.revision,
        trust=options.trust_remote_code,
        reads="image processor",
        files=PROCESSOR_FILES,
    )
    processor = load_processor(source.folder)
    config = configuration(source)
    architecture = architecture_of(source, AutoModelForImageClassification, config)
    family = VISION_FAMILIES.get(str(config.model_type))
    description = family.name if family else str(config.model_type)
    _name_outputs(config, classes)
    # All but the last layer must come from the file; of an architecture that is not known by name,
    # all of its backbone.
    base = f"{architecture.base_model_prefix}."
    plain = load_pretrained(
        AutoModelForImageClassification,
        source,
        config,
        f"a {description}",
        new=lambda key: (
            (key.startswith(family.last) if family else not key.startswith(base))
            or key.endswith(COMPUTED)
        ),
    )
    network = VisionClassifier(
        plain, family, tuple(classes), options.dropout or 0.0, options.seed
    ).eval()
    if _channels(network.config) not in (1, 3):
        rule = "reads images with other than 1 or 3 channels"
        raise ModelError(name, rule, _channels(network.config))
    facts = describe(source, network, description, hidden_size=network.head.in_features)
    # Batch norms bear a higher rate.
    defaults = "resnet" if description == "ResNet" else "vision"
    return LoadedVision(network, processor, None, source.decisions, facts, defaults=defaults)


def load_processor(folder: Path) -> Any:
    """The image processor beside a model, computed with Pillow (torchvision is not needed)."""
    from transformers import AutoImageProcessor

    make: Any = AutoImageProcessor.from_pretrained
    remedy = "It must be one of Transformers' own: see its preprocessor_config.json."
    with loading(str(folder), "has an image processor that cannot be used", remedy):
        return make(folder, backend="pil", trust_remote_code=False)


def _name_outputs(config: PretrainedConfig, classes: Sequence[str]) -> None:
    name_classes(config, classes)
    config.problem_type = "single_label_classification"
    config.dtype = torch.float32


def _channels(config: PretrainedConfig) -> int:
    return int(getattr(config, "num_channels", 3))


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
        model: Any = self.network.model
        return _channels(model.config)


def load_saved_vision(folder: Path) -> SavedVision:
    """Load a folder that ``VisionClassifier.save`` wrote with plain Transformers classes alone, in
    float32 and evaluation mode. Raises ``ModelError`` when it is no such folder."""
    from transformers import AutoModelForImageClassification

    rule = "cannot be loaded as an image classifier"
    model, classes = saved_model(folder, AutoModelForImageClassification, rule)
    return SavedVision(PlainVision(model).eval(), load_processor(folder), classes)
