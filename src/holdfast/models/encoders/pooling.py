"""Mean pooling inside a plain architecture that classifies from its first token.

One more encoder block computes the layer-normed mean exactly, but for rounding:

- zero query and key make the attention uniform over the real tokens; a value and an output of
  √SCALE · identity each make it add SCALE · mean to the first token's own state h;
- the layer norm after it forgets h: LN(SCALE · mean + h) = LN(mean) up to |h| ÷ (SCALE · |mean|);
- a zero feed-forward part leaves that as it is;
- what follows is made linear. tanh(ε x) ÷ ε = x up to ε² x² ÷ 3. Where the activation g is ReLU
  or one of the GELU kind, g(z) − g(−z) = z exactly, so the dense layer takes the rows W and −W of
  the head and the last layer subtracts.

``SHRINK`` on the norm before it cancels in the layer norm; with it no value and no weight leaves
float16, for those who load the folder so.
Layer-normed features are what ``pooling.MeanPool`` gives, so the trained function is the saved one.

From the last hidden states of all tokens [B, T, H] to the features that the last layer reads:
one row of them [B, D] a text, or one a token [B, T, D].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from holdfast.core.errors import Defect
from holdfast.models.encoders.families import Family

if TYPE_CHECKING:
    from collections.abc import Collection

    from transformers import PretrainedConfig

# A millionth is left of the first token's own state, about what float32 resolves.
SCALE = 1e6
SHRINK = 1e-3
NORM_GAIN = 100.0
# Of a feature of 1 the tanh takes ε² ÷ 3, some 3e-9: below what float32 resolves.
TANH_EPSILON = 1e-4
MARK = "holdfast_mean_pooling"
# g(z) − g(−z) = z holds for each of these.
ODD_PARTS = ("relu", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "silu", "swish")

State = dict[str, Tensor]


def why_not_mean(family: Family, config: PretrainedConfig, classes: int) -> str:
    """Why a plain folder of this model cannot carry mean pooling; empty when it can."""
    hidden = int(config.hidden_size)
    if family.own_mean:
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
        if name not in ODD_PARTS:
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
    setattr(config, MARK, True)


def strip_carrier(plain: nn.Module, family: Family) -> None:
    """Take the carrying block off a model that Holdfast saved, so that it can be trained again."""
    config: Any = plain.config
    if family.block is None or not getattr(config, MARK, False):
        return
    backbone = plain.get_submodule(family.base)
    blocks: Any = backbone.get_submodule(family.blocks)
    del blocks[len(blocks) - 1]
    count = len(blocks)
    setattr(config, family.count, count)
    setattr(config, MARK, False)
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
        both = slice(2 * classes)
        dense, dense_bias = torch.zeros(width, width), torch.zeros(width)
        dense[both] = torch.cat([weight, -weight])
        dense_bias[both] = torch.cat([bias, -bias])
        last, last_bias = torch.zeros(classes, width), torch.zeros(classes)
        last[:, both] = torch.cat([torch.eye(classes), -torch.eye(classes)], dim=1)
    else:
        dense, dense_bias = torch.eye(width) * TANH_EPSILON, torch.zeros(width)
        last, last_bias = weight / TANH_EPSILON, bias
    state[f"{family.dense}.weight"], state[f"{family.dense}.bias"] = dense, dense_bias
    state[f"{family.last}.weight"], state[f"{family.last}.bias"] = last, last_bias


# The plain carrier of mean pooling scales its input up before the norm, so that no epsilon of an
# architecture's own (1e-5 in RoBERTa) may enter here.
NORM_EPSILON = 1e-12


def masked_mean(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the real tokens, [B, T, H] and [B, T] → [B, H], in at least float32.

    ``mask`` is 1 at real tokens (the special ones among them) and 0 at padding; ``None`` means
    that there is no padding. A row without a real token gives NaN.
    """
    wide = hidden if hidden.dtype == torch.float64 else hidden.float()
    if mask is None:
        return wide.mean(dim=1)
    weights = mask.to(wide.dtype).unsqueeze(-1)
    return (wide * weights).sum(dim=1) / weights.sum(dim=1)


class MeanPool(nn.Module):
    """The masked mean, then a layer norm without weights: (m − mean(m)) ÷ std(m) over [H].

    The norm is what one more encoder block computes anyway when it carries the mean in a plain
    architecture (see ``models/encoders/pooling.py``); trained with it, the saved model is the same
    model.
    """

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        mean = masked_mean(hidden, mask)
        return nn.functional.layer_norm(mean, mean.shape[-1:], eps=NORM_EPSILON)


class OwnPool(nn.Module):
    """An architecture's own pooling: the first token (or the mean), dense layer, activation, and
    in ModernBERT a norm. Differs from ``MeanPool`` in having weights."""

    def __init__(
        self,
        dense: nn.Module,
        activation: Callable[[Tensor], Tensor],
        *,
        norm: nn.Module | None = None,
        dropout: float = 0.0,
        over: Literal["first", "mean"] = "first",
    ) -> None:
        super().__init__()
        self.dense = dense
        self.activation = activation
        self.norm = norm
        self.dropout = nn.Dropout(dropout)
        self.over = over

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        token = hidden[:, 0] if self.over == "first" else masked_mean(hidden, mask)
        features: Tensor = self.activation(self.dense(self.dropout(token)))
        return features if self.norm is None else self.norm(features)


class EachToken(nn.Module):
    """The last hidden states of all tokens [B, T, H], as they are or through the layers that an
    architecture has ``between`` them and its last one (ModernBERT alone). Differs from ``MeanPool``
    and ``OwnPool`` in that it keeps every token."""

    over: Literal["each"] = "each"

    def __init__(self, between: nn.Module | None = None) -> None:
        super().__init__()
        self.between = between

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        return hidden if self.between is None else self.between(hidden)
