"""A saved folder → a classifier, through plain Transformers classes alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from holdfast.core.door import door
from holdfast.core.errors import ModelError
from holdfast.models.adapter_save import is_adapter_folder, load_adapted, read_facts
from holdfast.models.limits import stated_limit
from holdfast.models.quiet import quiet_transformers
from holdfast.models.source import read_config
from holdfast.models.tokens import accepted_inputs
from holdfast.models.whole import SAVED, check_tokenizer, read_saved


class PlainClassifier(nn.Module):
    """A plain classification model whose ``forward`` takes what a tokenizer gives and returns
    logits [B, C]. Differs from ``EncoderClassifier`` in that nothing of Holdfast computes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.accepts = accepted_inputs(model.config)

    def forward(self, **inputs: Tensor) -> Tensor:
        taken = {name: value for name, value in inputs.items() if name in self.accepts}
        logits: Tensor = self.model(**taken).logits
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
    folder: Path, least: int = 2, purpose: str = "AutoModelForSequenceClassification"
) -> SavedClassifier:
    """Load a folder that ``EncoderClassifier.save`` wrote, in float32 and evaluation mode.

    Only Transformers' ``AutoTokenizer`` and the class that ``purpose`` names read it, without
    remote code and from safetensors, so that what is scored is what anybody loads.

    Raises
    ------
    ModelError : the folder is absent, incomplete, or not a classifier.
    """
    if is_adapter_folder(folder):
        return _load_adapter(folder, least, purpose)
    config = read_config(str(folder), folder)
    named = config.get("id2label")
    if not isinstance(named, dict) or len(named) < least:
        raise ModelError(str(folder), "is not a saved classifier: it names no classes", None, SAVED)
    model, tokenizer = _read(folder, purpose)
    with door(str(folder), ModelError, "does not name its classes from 0 on"):
        names = model.config.id2label
        classes = tuple(str(names[index]) for index in range(len(names)))
    length = stated_limit(tokenizer.model_max_length)
    return SavedClassifier(PlainClassifier(model).eval(), tokenizer, classes, length)


def save_plain(network: PlainClassifier, folder: Path, tokenizer: Any) -> None:
    """Write a classifier that ``load_saved`` gave, as it was read."""
    model: Any = network.model
    with quiet_transformers():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _load_adapter(folder: Path, least: int, purpose: str) -> SavedClassifier:
    """A PEFT folder: the pretrained model, the adapter and the head, through plain PEFT."""
    import transformers
    from transformers import AutoTokenizer

    classes = tuple(map(str, read_facts(folder).get("classes") or ()))
    if len(classes) < least:
        raise ModelError(str(folder), "is not a saved classifier: it names no classes", None, SAVED)
    names = dict(enumerate(classes))
    model = load_adapted(
        folder,
        getattr(transformers, purpose),
        num_labels=len(classes),
        id2label=names,
        label2id={name: index for index, name in names.items()},
        ignore_mismatched_sizes=True,
    )
    with quiet_transformers(), door(str(folder), ModelError, "has no readable tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    check_tokenizer(str(folder), tokenizer, model.config)
    return SavedClassifier(
        PlainClassifier(model), tokenizer, classes, stated_limit(tokenizer.model_max_length)
    )


def _read(folder: Path, purpose: str) -> tuple[Any, Any]:
    import transformers
    from transformers import AutoTokenizer

    rule = "cannot be loaded as a classifier"
    with door(str(folder), ModelError, rule, SAVED), quiet_transformers():
        model = read_saved(getattr(transformers, purpose), folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    check_tokenizer(str(folder), tokenizer, model.config)
    return model, tokenizer
