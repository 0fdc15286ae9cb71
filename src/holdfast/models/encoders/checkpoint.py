"""Loading a saved folder as a classifier or tagger, only through plain Transformers classes; and
the features that its last layer reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from holdfast.core.errors import ModelError
from holdfast.core.input_errors import reading_errors
from holdfast.models.adapters.save import load_adapted
from holdfast.models.encoders.families import FAMILIES, MEAN_POOLING_KEY
from holdfast.models.encoders.network import masked_mean
from holdfast.models.loading.adapter_folder import is_adapter_folder, read_facts
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.source import read_config
from holdfast.models.loading.tokenizer import accepted_inputs, stated_limit
from holdfast.models.loading.weights import SAVED, check_tokenizer, read_saved

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from holdfast.models.base import ModelFactory, Preprocessor


class PlainClassifier(nn.Module):
    """A plain classification model whose ``forward`` takes the tokenizer's output and returns
    logits [B, C]. Differs from ``EncoderClassifier`` in that it runs no code of Holdfast."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.accepts = accepted_inputs(model.config)

    def forward(self, **inputs: Tensor) -> Tensor:
        accepted = {name: value for name, value in inputs.items() if name in self.accepts}
        logits: Tensor = self.model(**accepted).logits
        return logits


@dataclass(frozen=True)
class SavedClassifier:
    """What ``load_saved`` gives; ``classes`` in the order of the logits, ``max_length`` in
    tokens."""

    network: PlainClassifier
    tokenizer: Any
    classes: tuple[str, ...]
    max_length: int


def load_saved(
    folder: Path, min_classes: int = 2, purpose: str = "AutoModelForSequenceClassification"
) -> SavedClassifier:
    """Load a folder that ``EncoderClassifier.save`` wrote, in float32 and evaluation mode.

    Only Transformers' ``AutoTokenizer`` and the class that ``purpose`` names read it, without
    remote code and from safetensors, so that the scored model is the one that users load.

    Raises
    ------
    ModelError : the folder is missing, incomplete, or not a classifier.
    """
    import transformers
    from transformers import AutoTokenizer

    make, rule = getattr(transformers, purpose), "cannot be loaded as a classifier"
    model, classes = saved_model(folder, make, rule, min_classes)
    with (
        quiet_transformers(),
        reading_errors(str(folder), ModelError, "has no readable tokenizer", SAVED),
    ):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    check_tokenizer(str(folder), tokenizer, model.config)
    # An adapter's folder keeps the padding token, which a decoder needs, in the tokenizer alone.
    if getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    length = stated_limit(tokenizer.model_max_length)
    return SavedClassifier(PlainClassifier(model).eval(), tokenizer, classes, length)


def load_saved_tagger(folder: Path) -> SavedClassifier:
    """Load the folder of a tagger through plain Transformers (and PEFT); the network's logits are
    [B, T, tags]. Raises ``ModelError`` if it is incomplete."""
    saved = load_saved(folder, purpose="AutoModelForTokenClassification")
    check_fast(str(folder), saved.tokenizer)
    return saved


def check_fast(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ``ModelError`` for a tokenizer that taggers cannot use."""
    if not tokenizer.is_fast:
        rule = "has a tokenizer that does not map tokens to words"
        remedy = "Choose a model with a tokenizer.json."
        raise ModelError(name, rule, type(tokenizer).__name__, remedy)


def saved_model(
    folder: Path, make: ModelFactory, rule: str, min_classes: int = 0
) -> tuple[Any, tuple[str, ...]]:
    """The classifier of Transformers' class ``make`` in a saved folder, or the pretrained one with
    the folder's adapter on it through plain PEFT; and its classes in the order of the logits.

    Raises ``ModelError`` with ``rule`` where it cannot be read, or names fewer than
    ``min_classes``.
    """
    adapted = is_adapter_folder(folder)
    if adapted:
        class_names: Any = dict(enumerate(map(str, read_facts(folder).get("classes") or ())))
    else:
        class_names = read_config(str(folder), folder).get("id2label")
    if min_classes and (not isinstance(class_names, dict) or len(class_names) < min_classes):
        raise ModelError(str(folder), "is not a saved classifier: it names no classes", None, SAVED)
    if adapted:
        model = load_adapted(
            folder,
            make,
            num_labels=len(class_names),
            id2label=class_names,
            label2id={name: index for index, name in class_names.items()},
            ignore_mismatched_sizes=True,
        )
        return model, tuple(class_names.values())
    with reading_errors(str(folder), ModelError, rule, SAVED), quiet_transformers():
        model = read_saved(make, folder)
    with reading_errors(str(folder), ModelError, "does not number its classes from 0"):
        names = model.config.id2label
        return model, tuple(str(names[index]) for index in range(len(names)))


def save_plain(network: PlainClassifier, folder: Path, tokenizer: Preprocessor) -> None:
    """Write a classifier that ``load_saved`` gave, as it was read."""
    model: Any = network.model
    with quiet_transformers():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def last_layer(plain: nn.Module) -> nn.Module | None:
    """The layer of a plain classifier or tagger that reads its features; ``None`` if none is found.
    With mean pooling in the model it is the layer that reads the mean."""
    config: Any = plain.config
    family = FAMILIES.get(str(config.model_type))
    # The plain model inside PEFT's.
    inner: Any = plain.get_base_model() if hasattr(plain, "get_base_model") else plain  # type: ignore[operator]
    modules: dict[str, nn.Module] = dict(inner.named_modules())
    if family is not None and getattr(config, MEAN_POOLING_KEY, False):
        return modules.get(family.dense)
    if family is not None and family.last in modules:
        return modules[family.last]
    width = int(getattr(config, "num_labels", 0))
    linear = [one for one in modules.values() if isinstance(one, nn.Linear)]
    return linear[-1] if linear and linear[-1].out_features == width else None


@contextmanager
def recording_features(plain: nn.Module, layer: nn.Module | None = None) -> Iterator[list[Tensor]]:
    """Inside, every pass through ``plain`` adds the input of its last layer, [B, D]; for a tagger
    the mean over a row's real tokens, for a classifier that reads every token (a decoder) that of
    the token it answers at, the last one that is no padding. Nothing is added without such a layer.
    ``layer`` gives one that is not at its usual place."""
    layer, features = layer or last_layer(plain), list[Tensor]()
    inputs: dict[str, Tensor | None] = {}
    inner: Any = plain.get_base_model() if hasattr(plain, "get_base_model") else plain  # type: ignore[operator]
    classifies = type(inner).__name__.endswith("ForSequenceClassification")

    def begin(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, Tensor | None]) -> None:
        inputs.clear()
        inputs.update(kwargs)

    def read(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        states = args[0].detach().float()
        mask, ids = inputs.get("attention_mask"), inputs.get("input_ids")
        if states.dim() == 3 and classifies and ids is not None:
            # As Transformers finds it, whatever the mask; a soft prompt stands before the tokens.
            places = torch.arange(ids.shape[1], device=ids.device)
            last = (places * (ids != inner.config.pad_token_id)).argmax(dim=1)
            states = states[:, -ids.shape[1] :][torch.arange(len(ids), device=ids.device), last]
        elif states.dim() == 3:
            # A soft prompt stands before the real tokens.
            length = states.shape[1] if mask is None else mask.shape[1]
            states = masked_mean(states[:, -length:], mask)
        features.append(states.flatten(1))

    with ExitStack() as hooks:
        hooks.enter_context(plain.register_forward_pre_hook(begin, with_kwargs=True))
        if layer is not None:
            hooks.enter_context(layer.register_forward_pre_hook(read))
        yield features
