"""An image model's name and the classes → a network ready to be trained, and its processor."""

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
from holdfast.core.records import Decision
from holdfast.models.adapters.save import merged_state, merges, save_adapter
from holdfast.models.base import Adapter, Layer
from holdfast.models.encoders.head import new_head
from holdfast.models.loading.checks import loading
from holdfast.models.loading.completeness import COMPUTED
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.source import Source, find_model
from holdfast.models.loading.weights import (
    check_dropout,
    configuration,
    describe,
    name_classes,
    pretrained,
)
from holdfast.models.vision.families import VisionFamily, image_layers, vision_family

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from holdfast.models.base import Preprocessor

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


class VisionClassifier(nn.Module):
    """An image classifier: ``head(dropout(features))``.

    ``backbone`` is the plain Transformers model without its last linear layer, so that ``features``
    [B, D] is that layer's exact input, whatever the architecture. A batch norm that is frozen stays
    in evaluation mode; one that learns keeps its running statistics up to date. ``layout`` is the
    order in memory that pictures are brought into (see ``memory_layout``).
    """

    config: Any
    adapter: Adapter | None = None
    fixed: frozenset[int] = frozenset()
    new_head = True
    layout: torch.memory_format = torch.contiguous_format

    def __init__(
        self,
        plain: nn.Module,
        family: VisionFamily,
        classes: tuple[str, ...],
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        last: Any = plain.get_submodule(family.last)
        self.backbone = plain
        self.backbone.set_submodule(family.last, nn.Identity())
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
        return [*image_layers(self.backbone, self.family), Layer("head", (self.head,))]

    def train(self, mode: bool = True) -> VisionClassifier:
        """Training mode for what learns; frozen batch norms stay as they were pretrained."""
        super().train(mode)
        for module in self.backbone.modules() if mode else ():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train(all(p.requires_grad for p in module.parameters()))
        return self

    @property
    def word_embeddings(self) -> nn.Embedding:
        """A picture has none: raises ``RecipeError``."""
        raise RecipeError(
            "model.freeze",
            "names word embeddings, which an image model lacks",
            "words",
            f"Layers: {', '.join(layer.name for layer in self.layers())}.",
        )

    def save(self, folder: Path, processor: Preprocessor, temperature: float = 1.0) -> None:
        """Write a folder that plain ``AutoModelForImageClassification`` loads, giving these logits
        ÷ ``temperature``, with the processor beside it. Raises ``Defect`` for a temperature that is
        no positive number, ``MachineError`` when the folder cannot be written."""
        if not (math.isfinite(temperature) and temperature > 0):
            raise Defect("temperature", "must be a positive number", temperature)
        if not merges(self):
            _save_adapter(self, folder, processor, temperature)
            return
        last = nn.Linear(self.head.in_features, self.head.out_features)
        with torch.no_grad():
            last.weight.copy_(self.head.weight / temperature)
            last.bias.copy_(self.head.bias / temperature)
        _set_classes(self.config, self.classes)
        plain: Any = self.backbone
        plain.set_submodule(self.family.last, last)
        try:
            with disk_errors(folder), quiet_transformers():
                folder.mkdir(parents=True, exist_ok=True)
                adapted = self.adapter is not None
                whole = _merged(self, self.config, temperature) if adapted else plain
                whole.save_pretrained(folder)
                processor.save_pretrained(folder)
        finally:
            # The network goes on without the plain model's last layer.
            plain.set_submodule(self.family.last, nn.Identity())


def _save_adapter(
    network: VisionClassifier, folder: Path, processor: Preprocessor, temperature: float
) -> None:
    """The adapter and the last layer ÷ ``temperature``, with the processor beside them."""
    adapter = network.adapter
    assert adapter is not None
    save_adapter(
        adapter,
        folder,
        processor,
        extra=_last(network, temperature),
        modules=[network.family.last],
        classes=network.classes,
    )


def _merged(network: VisionClassifier, config: PretrainedConfig, temperature: float) -> Any:
    """A plain image classifier with the adapter merged in and the last layer ÷ ``temperature``."""
    with torch.device("meta"):
        plain = type(network.backbone)(copy.deepcopy(config))
    state = merged_state(network.backbone) | _last(network, temperature)
    plain.load_state_dict(state, strict=False, assign=True)
    return plain


def _last(network: VisionClassifier, temperature: float) -> dict[str, Tensor]:
    head, name = network.head, network.family.last
    return {
        f"{name}.weight": (head.weight / temperature).detach().float().cpu(),
        f"{name}.bias": (head.bias / temperature).detach().float().cpu(),
    }


@dataclass(frozen=True)
class LoadedVision:
    """What ``load_vision`` gives. ``tokenizer`` is the image processor (PIL back end), under the
    name that every kind of task uses; ``max_length`` is ``None``: pictures have no length."""

    network: VisionClassifier
    tokenizer: Any
    max_length: None
    decisions: tuple[Decision, ...]
    facts: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        return {}

    @property
    def defaults(self) -> str:
        """Batch norms bear a higher rate."""
        return "resnet" if self.network.family.name == "ResNet" else "vision"

    @property
    def channels(self) -> int:
        """Colour channels that the model reads: 1 or 3."""
        return int(getattr(self.network.config, "num_channels", 3))


def load_vision(
    name: str,
    classes: Sequence[str],
    *,
    dropout: float | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    seed: int = 0,
) -> LoadedVision:
    """Load a pretrained image model and put a new classification head on it, in float32 and
    evaluation mode.

    Parameters
    ----------
    name : a folder, or a hub model's name: ResNet, ConvNeXt, ViT or Swin.
    classes : the class names in the order of the logits; at least two, all different.
    dropout : before the head, in [0, 1); ``None`` is none.
    revision, trust_remote_code : as for a text model; no code of the model's own is run.
    seed : of the head's weights.

    Raises
    ------
    ModelError : the model cannot be found, read or fitted to the task.
    RecipeError : a setting is out of its range.
    """
    _check(name, classes, dropout)
    source = find_model(
        name,
        revision=revision,
        trust=trust_remote_code,
        reads="image processor",
        files=PROCESSOR_FILES,
    )
    family = vision_family(str(source.config.get("model_type")), name)
    processor = load_processor(source.folder)
    plain = _load_weights(source, family, tuple(classes))
    network = VisionClassifier(plain, family, tuple(classes), dropout or 0.0, seed).eval()
    channels = int(getattr(network.config, "num_channels", 3))
    if channels not in (1, 3):
        raise ModelError(name, "reads pictures of other than 1 or 3 channels", channels)
    facts = describe(source, network, family.name, hidden_size=network.head.in_features)
    return LoadedVision(network, processor, None, source.decisions, facts)


def load_processor(folder: Path) -> Any:
    """The image processor beside a model, computed with Pillow (torchvision is not needed)."""
    from transformers import AutoImageProcessor

    make: Any = AutoImageProcessor.from_pretrained
    remedy = "It must be one of Transformers' own: see its preprocessor_config.json."
    with loading(str(folder), "has an image processor that cannot be used", remedy):
        return make(folder, backend="pil", trust_remote_code=False)


def _check(name: str, classes: Sequence[str], dropout: float | None) -> None:
    if name == "embedded":
        raise ModelError(
            "model.name",
            "is the embedded text model, and pictures need an image model",
            name,
            "Name a folder or a hub model with --model, e.g. microsoft/resnet-50 or "
            "google/vit-base-patch16-224-in21k.",
        )
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise ModelError(
            "classes",
            "must be at least two different names",
            list(classes),
            "Check the folders: a classifier needs something to tell apart.",
        )
    check_dropout(dropout)


def _load_weights(source: Source, family: VisionFamily, classes: tuple[str, ...]) -> Any:
    """All but the last layer must come from the file."""
    from transformers import AutoModelForImageClassification

    config = configuration(source)
    _set_classes(config, classes)
    return pretrained(
        AutoModelForImageClassification,
        source,
        config,
        f"a {family.name}",
        new=lambda key: key.startswith(family.last) or key.endswith(COMPUTED),
    )


def _set_classes(config: PretrainedConfig, classes: tuple[str, ...]) -> None:
    name_classes(config, classes)
    config.problem_type = "single_label_classification"
    config.dtype = torch.float32
