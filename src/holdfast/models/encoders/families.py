"""The architectures that Holdfast knows, where each keeps its parts, and how a plain one that
classifies from its first token carries mean pooling.

All paths are those of Transformers' plain ``…ForSequenceClassification`` classes, which is what a
saved folder is loaded with. One more encoder block computes the layer-normed mean exactly, but for
rounding:

- zero query and key make the attention uniform over the real tokens (in MPNet, as its bias by
  relative position weighs them for the first one, each head a share of the width); a value and an
  output of √SCALE · identity each make it add SCALE · mean to the first token's own state h;
- the layer norm after it forgets h: LN(SCALE · mean + h) = LN(mean) up to |h| ÷ (SCALE · |mean|);
- a zero feed-forward part leaves that as it is;
- what follows is made linear. tanh(ε x) ÷ ε = x up to ε² x² ÷ 3. Where the activation g is ReLU
  or one of the GELU kind, g(z) − g(−z) = z exactly, so the dense layer takes the rows W and −W of
  the head and the last layer subtracts.

``SHRINK`` on the norm before it cancels in the layer norm; with it no value and no weight leaves
float16, for those who load the folder so. Layer-normed features are what ``network.MeanPool``
gives, so the trained function is the saved one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from holdfast.core.errors import Defect

if TYPE_CHECKING:
    from collections.abc import Collection

    from transformers import PretrainedConfig


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
    position_bias : the backbone's module that adds a learned bias by relative position to the
        scores of every block's attention; the mean that a block carries is weighted by it.
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
    has_mean_pooling: bool = False
    position_bias: str | None = None


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
    "mpnet": replace(
        _ROBERTA,
        name="MPNet",
        base="mpnet",
        embeddings=("embeddings", "encoder.relative_attention_bias"),
        block=BlockLayout(
            "attention.attn.v", "attention.attn.o", "attention.LayerNorm", "output.LayerNorm"
        ),
        position_bias="encoder",
    ),
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
        has_mean_pooling=True,
    ),
}


# A millionth is left of the first token's own state, about what float32 resolves.
SCALE = 1e6
SHRINK = 1e-3
NORM_GAIN = 100.0
# Of a feature of 1 the tanh takes ε² ÷ 3, some 3e-9: below what float32 resolves.
TANH_EPSILON = 1e-4
MEAN_POOLING_KEY = "holdfast_mean_pooling"
# g(z) − g(−z) = z holds for each of these.
ODD_PART_ACTIVATIONS = (
    "relu",
    "gelu",
    "gelu_new",
    "gelu_fast",
    "gelu_pytorch_tanh",
    "silu",
    "swish",
)

State = dict[str, Tensor]


def why_not_mean(family: Family, config: PretrainedConfig, classes: int) -> str:
    """Why a plain folder of this model cannot carry mean pooling; empty when it can."""
    hidden = int(config.hidden_size)
    if family.has_mean_pooling:
        return ""
    if family.block is None:
        return family.cannot_carry
    head_size = int(config.hidden_size) // int(config.num_attention_heads)
    if int(getattr(config, "attention_head_size", 0) or 0) not in (0, head_size):
        return "its attention is not as wide as its hidden states"
    if int(getattr(config, "pooler_hidden_size", hidden)) != hidden:
        return "its pooler is not as wide as its hidden states"
    if family.activation.startswith("config:"):
        name = getattr(config, family.activation.removeprefix("config:"))
        if name not in ODD_PART_ACTIVATIONS:
            return f"its pooler's activation {name} cannot be made linear"
    if family.carry == "odd" and 2 * classes > hidden:
        return f"its head of width {hidden} cannot hold {classes} classes twice"
    return ""


def carry_mean(state: State, family: Family, config: PretrainedConfig, head: nn.Linear) -> None:
    """Add the carrying block and head to ``state`` (a plain model's, without a head), and count
    it in ``config``."""
    if family.block is None:
        raise Defect(family.name, f"cannot carry mean pooling: {family.cannot_carry}")
    count = int(getattr(config, family.count))
    blocks = f"{family.base}.{family.blocks}"
    before, added = f"{blocks}.{count - 1}.", f"{blocks}.{count}."
    for key in [key for key in state if key.startswith(before)]:
        # Every part of it 0 first: what is not set below then adds nothing.
        state[added + key.removeprefix(before)] = torch.zeros_like(state[key])
    block, width = family.block, int(config.hidden_size)
    state[f"{added}{block.value}.weight"] = torch.eye(width) * math.sqrt(SCALE)
    state[f"{added}{block.output}.weight"] = torch.eye(width) * math.sqrt(SCALE)
    # The second norm sees a large variance, so that its epsilon vanishes.
    state[f"{added}{block.first_norm}.weight"] = torch.full((width,), NORM_GAIN)
    state[f"{added}{block.last_norm}.weight"] = torch.ones(width)
    for key in _last_norm_keys(state, family, before, count):
        state[key] = state[key] * SHRINK
    _fill_head(state, family, head)
    setattr(config, family.count, count + 1)
    setattr(config, MEAN_POOLING_KEY, True)


def strip_carrier(plain: nn.Module, family: Family) -> None:
    """Take the carrying block off a model that Holdfast saved, so that it can be trained again."""
    config: Any = plain.config
    if family.block is None or not getattr(config, MEAN_POOLING_KEY, False):
        return
    backbone = plain.get_submodule(family.base)
    blocks: Any = backbone.get_submodule(family.blocks)
    del blocks[len(blocks) - 1]
    count = len(blocks)
    setattr(config, family.count, count)
    setattr(config, MEAN_POOLING_KEY, False)
    parameters = {f"{family.base}.{name}": value for name, value in backbone.named_parameters()}
    before = f"{family.base}.{family.blocks}.{count - 1}."
    with torch.no_grad():
        for key in _last_norm_keys(parameters, family, before, count):
            parameters[key].div_(SHRINK)


def _last_norm_keys(state: Collection[str], family: Family, before: str, count: int) -> list[str]:
    """The norm whose output the carrying block reads: in DeBERTa's first block that of its
    convolution, where it has one."""
    convolution = f"{family.base}.encoder.conv.LayerNorm"
    norm = f"{before}{family.block.last_norm}" if family.block else ""
    if count == 1 and f"{convolution}.weight" in state:
        norm = convolution
    return [f"{norm}.weight", f"{norm}.bias"]


def _fill_head(state: State, family: Family, head: nn.Linear) -> None:
    weight, bias = head.weight.detach().float().cpu(), head.bias.detach().float().cpu()
    classes, width = weight.shape
    if family.carry == "odd":
        both_halves = slice(2 * classes)
        dense, dense_bias = torch.zeros(width, width), torch.zeros(width)
        dense[both_halves] = torch.cat([weight, -weight])
        dense_bias[both_halves] = torch.cat([bias, -bias])
        last, last_bias = torch.zeros(classes, width), torch.zeros(classes)
        last[:, both_halves] = torch.cat([torch.eye(classes), -torch.eye(classes)], dim=1)
    else:
        dense, dense_bias = torch.eye(width) * TANH_EPSILON, torch.zeros(width)
        last, last_bias = weight / TANH_EPSILON, bias
    state[f"{family.dense}.weight"], state[f"{family.dense}.bias"] = dense, dense_bias
    state[f"{family.last}.weight"], state[f"{family.last}.bias"] = last, last_bias
