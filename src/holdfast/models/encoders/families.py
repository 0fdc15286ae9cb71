"""The architectures that Holdfast knows, and where each keeps its parts. Standard library only.

All paths are those of Transformers' plain ``…ForSequenceClassification`` classes, which is what
a saved folder is loaded with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from holdfast.core.errors import ModelError


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """Where one post-norm encoder block keeps its attention's value and output projections and
    its two layer norms."""

    value: str
    output: str
    first_norm: str
    last_norm: str


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture.

    Parameters
    ----------
    name : as people write it.
    base : the attribute of the classification model that holds the backbone.
    blocks : the backbone's list of encoder blocks.
    embeddings : the backbone's modules that belong to the first layer.
    dense, norm : the classification model's own pooling layer, and the norm after it if any.
    last : its last linear layer.
    dropout : the dropout before ``last``.
    inner_dropout : the dropout before ``dense``, if any.
    activation : after ``dense``: a name of Transformers', or ``config:KEY`` to look up.
    block : the parts of a block where a further block can carry mean pooling, else ``None``.
    cannot_carry : the reason, where ``block`` is ``None``.
    count : the configuration's key for the number of blocks.
    tail : backbone modules after the last block.
    """

    name: str
    base: str
    blocks: str
    embeddings: tuple[str, ...]
    dense: str
    last: str
    dropout: str
    activation: str
    inner_dropout: str | None = None
    norm: str | None = None
    block: BlockLayout | None = None
    cannot_carry: str = ""
    carry: Literal["tanh", "odd"] = "tanh"
    count: str = "num_hidden_layers"
    tail: tuple[str, ...] = ()
    own_mean: bool = False


_BLOCK = BlockLayout(
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "output.LayerNorm",
)
_BERT = Family(
    "BERT",
    "bert",
    "encoder.layer",
    ("embeddings",),
    "bert.pooler.dense",
    "classifier",
    "dropout",
    "tanh",
    block=_BLOCK,
)
_ROBERTA = replace(
    _BERT,
    name="RoBERTa",
    base="roberta",
    dense="classifier.dense",
    last="classifier.out_proj",
    dropout="classifier.dropout",
    inner_dropout="classifier.dropout",
)

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": replace(_ROBERTA, name="XLM-RoBERTa"),
    "camembert": replace(_ROBERTA, name="CamemBERT"),
    "distilbert": Family(
        "DistilBERT",
        "distilbert",
        "transformer.layer",
        ("embeddings",),
        "pre_classifier",
        "classifier",
        "dropout",
        "relu",
        carry="odd",
        count="n_layers",
        block=BlockLayout(
            "attention.v_lin", "attention.out_lin", "sa_layer_norm", "output_layer_norm"
        ),
    ),
    "electra": replace(
        _ROBERTA,
        name="ELECTRA",
        base="electra",
        embeddings=("embeddings", "embeddings_project"),
        activation="gelu",
        carry="odd",
    ),
    "deberta-v2": Family(
        "DeBERTa",
        "deberta",
        "encoder.layer",
        ("embeddings", "encoder.rel_embeddings", "encoder.LayerNorm", "encoder.conv"),
        "pooler.dense",
        "classifier",
        "dropout",
        "config:pooler_hidden_act",
        inner_dropout="pooler.dropout",
        carry="odd",
        block=replace(_BLOCK, value="attention.self.value_proj"),
    ),
    "albert": Family(
        "ALBERT",
        "albert",
        "encoder.albert_layer_groups",
        ("embeddings", "encoder.embedding_hidden_mapping_in"),
        "albert.pooler",
        "classifier",
        "dropout",
        "tanh",
        cannot_carry="its blocks share one set of weights, so none can be added",
    ),
    "modernbert": Family(
        "ModernBERT",
        "model",
        "layers",
        ("embeddings",),
        "head.dense",
        "classifier",
        "drop",
        "config:classifier_activation",
        norm="head.norm",
        tail=("final_norm",),
        own_mean=True,
    ),
}


def family_of(model_type: str, name: str) -> Family:
    """The family of a configuration's ``model_type``; ``name`` is the model's, for the message."""
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    raise ModelError(
        name,
        "has an architecture that cannot be made a text classifier here",
        model_type,
        f"Choose an encoder of one of these architectures: {', '.join(sorted(FAMILIES))}.",
    )
