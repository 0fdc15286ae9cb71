"""A model's name and the classes → a network ready to be trained, its tokenizer and the reasons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from holdfast.core.errors import ModelError, RecipeError
from holdfast.core.records import Decision
from holdfast.models.adapters.adapter import PROMPT_VECTORS, attach
from holdfast.models.base import AdapterSpec
from holdfast.models.encoders.families import Family, family_of
from holdfast.models.encoders.network import REGRESSION, SINGLE_LABEL, EncoderClassifier
from holdfast.models.encoders.pooling import MARK, MeanPool, OwnPool, strip_carrier, why_not_mean
from holdfast.models.loading.checks import check_computes, loading
from holdfast.models.loading.limits import choose_max_length
from holdfast.models.loading.source import Source, find_model
from holdfast.models.loading.tokenizer import limit_inputs, load_tokenizer
from holdfast.models.loading.weights import (
    check_dropout,
    configuration,
    describe,
    name_classes,
    pretrained,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

POOLINGS = ("auto", "mean", "own")
DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "classifier_dropout_prob",
    "cls_dropout",
    "pooler_dropout",
    "dropout",
    "attention_dropout",
    "seq_classif_dropout",
    "embedding_dropout",
    "mlp_dropout",
)


@dataclass(frozen=True)
class LoadedClassifier:
    """What ``load_classifier`` gives.

    ``max_length`` is the number of tokens a text is cut to; ``decisions`` are the choices made
    unasked, with reasons; ``facts`` are the model's name, architecture, pooling and sizes. See
    ``models.base.Loaded``.
    """

    network: EncoderClassifier
    tokenizer: Any
    max_length: int
    decisions: tuple[Decision, ...]
    facts: dict[str, Any]
    settings: dict[str, Any]
    defaults: str | None = None


def load_classifier(
    name: str,
    classes: Sequence[str],
    *,
    pooling: str = "auto",
    dropout: float | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    max_length: int | None = None,
    seed: int = 0,
    adapter: AdapterSpec | None = None,
    problem: str = SINGLE_LABEL,
) -> LoadedClassifier:
    """Load a pretrained encoder and put a new classification head on it, in float32 and
    evaluation mode.

    Parameters
    ----------
    name : ``"embedded"`` (MiniLM, English, no download), a folder, or a hub model's name.
    classes : the class names in the order of the logits; at least two, all different.
    pooling : ``"mean"`` over the real tokens, the architecture's ``"own"`` head, or ``"auto"``:
        the mean where a plain folder can carry it, else its own.
    dropout : one rate in [0, 1) for hidden states, attention and classifier; ``None`` leaves the
        model's.
    revision : a branch, tag or commit of a hub model.
    trust_remote_code : allow the code that a model's folder brings for its tokenizer to run, and
        load a model that brings code for its layers into Transformers' own layers.
    max_length : tokens a text is cut to; ``None`` chooses.
    seed : of every weight that is new.
    adapter : put one on the backbone; only it, the own pooling and the head then learn.
    problem : what the outputs mean, as Transformers' ``problem_type`` names it; a ``regression``
        has one output, which ``classes`` name.

    Raises
    ------
    ModelError : the model cannot be found, read or fitted to the task.
    RecipeError : a setting is out of its range.
    """
    _check(classes, pooling, dropout, problem)
    source = find_model(name, revision=revision, trust=trust_remote_code)
    family = family_of(str(source.config.get("model_type")), name)
    config = configuration(source, dropout, DROPOUTS)
    name_classes(config, classes)
    config.problem_type = problem
    tokenizer = load_tokenizer(source, trust_remote_code)
    length, length_reason = settle_length(source, config, tokenizer, max_length, adapter)
    with loading(source.name, "has a config.json that cannot be used"):
        chosen, pooling_reason = _choose_pooling(pooling, family, config, len(classes), adapter)
    plain = _load_weights(source, family, config, seed)
    network = assemble(plain, family, tuple(classes), chosen, seed)
    network.problem = problem
    added = finish(source, network, tokenizer, adapter, seed)
    decisions = (*source.decisions, pooling_reason, length_reason, *added)
    settings = {"pooling": network.pooling}
    return LoadedClassifier(
        network, tokenizer, length, decisions, facts_of(source, network), settings
    )


def settle_length(
    source: Source,
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    asked: int | None,
    adapter: AdapterSpec | None,
) -> tuple[int, Decision]:
    """How many tokens a text is cut to, and why; the tokenizer, and any saved copy of it, then cuts
    there and yields what the model takes."""
    _check_base(source, adapter)
    with loading(source.name, "states no length that can be used"):
        length, because = choose_max_length(
            source.folder, config, tokenizer, asked, _vectors(adapter)
        )
    tokenizer.model_max_length = length
    limit_inputs(tokenizer, config)
    return length, because


def finish(
    source: Source,
    network: EncoderClassifier,
    tokenizer: PreTrainedTokenizerBase,
    adapter: AdapterSpec | None,
    seed: int,
) -> tuple[Decision, ...]:
    """Put the adapter on, where one is asked for, and have the network compute once."""
    added: tuple[Decision, ...] = ()
    if adapter:
        added = attach(network, adapter, base=source.name, commit=source.commit, seed=seed)
    network.eval()
    if source.name != "embedded":
        check_computes(source.name, network, tokenizer)
    return added


def facts_of(source: Source, network: EncoderClassifier) -> dict[str, Any]:
    """The facts of a loaded encoder."""
    width = int(network.config.hidden_size)
    name = network.family.name
    return describe(source, network, name, pooling=network.pooling, hidden_size=width)


def assemble(
    plain: nn.Module, family: Family, classes: tuple[str, ...], pooling: str, seed: int
) -> EncoderClassifier:
    """Take a plain classification model apart: its backbone, its own pooling if it is used."""
    backbone = plain.get_submodule(family.base)
    own = _own_pool(plain, family, pooling) if pooling == "own" or family.own_mean else None
    if getattr(backbone, "pooler", None) is not None:
        # Weights that never see a gradient would stop distributed training.
        backbone.pooler = None  # type: ignore[assignment]
        if hasattr(backbone, "pooler_activation"):
            backbone.pooler_activation = None  # type: ignore[assignment]
    dropout = _rate(plain, family.dropout)
    return EncoderClassifier(backbone, own or MeanPool(), family, classes, dropout, seed)


def _own_pool(plain: nn.Module, family: Family, pooling: str) -> OwnPool:
    config: Any = plain.config
    over = "mean" if family.own_mean and config.classifier_pooling == "mean" else "first"
    return OwnPool(
        plain.get_submodule(family.dense),
        _activation(family, config),
        norm=plain.get_submodule(family.norm) if family.norm else None,
        dropout=_rate(plain, family.inner_dropout) if family.inner_dropout else 0.0,
        over=over,  # type: ignore[arg-type]
    )


def _activation(family: Family, config: PretrainedConfig) -> Callable[[torch.Tensor], torch.Tensor]:
    from transformers.activations import ACT2FN

    name = family.activation
    key = getattr(config, name.removeprefix("config:")) if name.startswith("config:") else name
    activation: Callable[[torch.Tensor], torch.Tensor] = ACT2FN[key]
    return activation


def _rate(plain: nn.Module, path: str) -> float:
    return float(plain.get_submodule(path).p)  # type: ignore[arg-type]


def _check(
    classes: Sequence[str], pooling: str, dropout: float | None, problem: str = SINGLE_LABEL
) -> None:
    least = 1 if problem == REGRESSION else 2
    if len(classes) < least or len(set(classes)) != len(classes):
        raise ModelError(
            "classes",
            "must be at least two different names",
            list(classes),
            "Check the label column: a classifier needs something to tell apart.",
        )
    if pooling not in POOLINGS:
        raise RecipeError(
            "model.pooling", "is unknown", pooling, f"Choose one of: {', '.join(POOLINGS)}."
        )
    check_dropout(dropout)


def _vectors(adapter: AdapterSpec | None) -> int:
    """Places that a learnt prompt takes from the text."""
    prompt = adapter is not None and adapter.kind == "prompt"
    return (adapter.rank or PROMPT_VECTORS) if adapter and prompt else 0


def _check_base(source: Source, adapter: AdapterSpec | None) -> None:
    if adapter and not adapter.merge and source.config.get(MARK):
        raise ModelError(
            source.name,
            "carries mean pooling in a block of its own, which is taken off before "
            "training: an adapter folder would name a model without it",
            None,
            "Use --set model.adapter.merge=true, or start from the model it was trained from.",
        )


def _choose_pooling(
    asked: str,
    family: Family,
    config: PretrainedConfig,
    classes: int,
    adapter: AdapterSpec | None = None,
) -> tuple[str, Decision]:
    """``"mean"`` or ``"own"`` with the reason; ModernBERT's own head is told to take the mean."""
    obstacle = why_not_mean(family, config, classes)
    if adapter and not adapter.merge:
        obstacle = (
            "a PEFT folder holds no configuration and no extra block to carry the mean "
            "(model.adapter.merge=true saves a whole model, which can)"
        )
    if asked == "mean" and obstacle:
        raise ModelError(
            "model.pooling",
            f"cannot be the mean in a plain {family.name}: {obstacle}",
            asked,
            "Use --set model.pooling=own.",
        )
    chosen = "own" if asked == "own" or obstacle else "mean"
    if family.own_mean and chosen == "mean":
        config.classifier_pooling = "mean"
    if asked != "auto":
        return chosen, Decision("model.pooling", chosen, "set by you")
    because = (
        f"its own head is used: {obstacle}"
        if obstacle
        else "on few rows the mean over all tokens did better than the first one (measured with "
        f"MiniLM), and a saved {family.name} carries it in plain form"
    )
    return chosen, Decision("model.pooling", chosen, because)


def _load_weights(source: Source, family: Family, config: PretrainedConfig, seed: int) -> nn.Module:
    """The backbone must come from the file; only what is new by design may be drawn."""
    from transformers import AutoModelForSequenceClassification

    base = f"{family.base}."
    plain: nn.Module = pretrained(
        AutoModelForSequenceClassification,
        source,
        config,
        f"a {family.name}",
        seed=seed,
        new=lambda key: not key.startswith(base) or key.startswith(f"{base}pooler."),
    )
    strip_carrier(plain, family)
    return plain
