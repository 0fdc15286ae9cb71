"""A pretrained encoder with a tag for each token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from holdfast.core.errors import ModelError
from holdfast.models.base import AdapterSpec
from holdfast.models.encoders.checkpoint import SavedClassifier, load_saved
from holdfast.models.encoders.classifier import (
    DROPOUTS,
    LoadedClassifier,
    facts_of,
    finish,
    settle_length,
)
from holdfast.models.encoders.families import Family, family_of
from holdfast.models.encoders.network import PLAIN, TOKENS, EncoderClassifier
from holdfast.models.encoders.pooling import EachToken, strip_carrier
from holdfast.models.loading.checks import loading
from holdfast.models.loading.source import Source, find_model
from holdfast.models.loading.tokenizer import forget_limits, load_tokenizer
from holdfast.models.loading.weights import check_dropout, configuration, name_classes, pretrained

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


def load_tagger(
    name: str,
    tags: Sequence[str],
    *,
    dropout: float | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    max_length: int | None = None,
    seed: int = 0,
    adapter: AdapterSpec | None = None,
) -> LoadedClassifier:
    """Load a pretrained encoder and put a new linear layer for ``tags`` on every token, in float32
    and evaluation mode; arguments as in ``load_classifier``. The network's logits are [B, T, tags].

    Raises
    ------
    ModelError : the model cannot be found, read or fitted to the task.
    RecipeError : a setting is out of its range.
    """
    check_dropout(dropout)
    source = find_model(name, revision=revision, trust=trust_remote_code)
    family = family_of(str(source.config.get("model_type")), name)
    config = configuration(source, dropout, DROPOUTS)
    name_classes(config, tags)
    tokenizer = _by_words(source, load_tokenizer(source, trust_remote_code))
    length, because = settle_length(source, config, tokenizer, max_length, adapter)
    network = _assemble(_load_weights(source, family, config, seed), family, tuple(tags), seed)
    decisions = (*source.decisions, because, *finish(source, network, tokenizer, adapter, seed))
    return LoadedClassifier(network, tokenizer, length, decisions, facts_of(source, network), {})


def load_saved_tagger(folder: Path) -> SavedClassifier:
    """Load the folder of a tagger through plain Transformers (and PEFT); the network's logits are
    [B, T, tags]. Raises ``ModelError`` where it is not whole."""
    saved = load_saved(folder, purpose=PLAIN[TOKENS])
    _check_fast(str(folder), saved.tokenizer)
    return saved


def _by_words(source: Source, tokenizer: PreTrainedTokenizerBase) -> Any:
    """The tokenizer as it reads lists of words: one of the byte-level kind must put a space before
    each of them."""
    _check_fast(source.name, tokenizer)
    with loading(source.name, "has a tokenizer that reads no lists of words"):
        # A word alone begins a text to such a tokenizer, and gets other pieces than inside one.
        if getattr(tokenizer, "add_prefix_space", True):
            return tokenizer
        from transformers import AutoTokenizer

        spaced = AutoTokenizer.from_pretrained(source.folder, add_prefix_space=True)
        forget_limits(spaced)
        return spaced


def _check_fast(what: str, tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.is_fast:
        raise ModelError(
            what,
            "has a tokenizer that does not tell which pieces are of which word",
            type(tokenizer).__name__,
            "Choose a model with a tokenizer.json.",
        )


def _load_weights(source: Source, family: Family, config: PretrainedConfig, seed: int) -> nn.Module:
    """The backbone must come from the file; what stands behind it may be drawn."""
    from transformers import AutoModelForTokenClassification

    plain: nn.Module = pretrained(
        AutoModelForTokenClassification,
        source,
        config,
        f"a {family.name}",
        seed=seed,
        new=lambda key: not key.startswith(f"{family.base}."),
    )
    strip_carrier(plain, family)
    return plain


def _assemble(
    plain: nn.Module, family: Family, tags: tuple[str, ...], seed: int
) -> EncoderClassifier:
    backbone, between = plain.get_submodule(family.base), getattr(plain, "head", None)
    dropout = next(m for n, m in plain.named_children() if n in ("dropout", "drop"))
    rate = float(dropout.p)  # type: ignore[arg-type]
    network = EncoderClassifier(backbone, EachToken(between), family, tags, rate, seed)
    network.problem = TOKENS
    return network
