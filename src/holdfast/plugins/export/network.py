"""A saved model → the plain function that is exported: what it reads by place, in float32, with no
adapter beside it and no block that only carries another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.core.errors import ModelError
from holdfast.models.encoders.families import FAMILIES, MARK, Family, strip_carrier
from holdfast.models.encoders.network import MeanPool
from holdfast.models.loading.tokenizer import accepted_inputs

PICTURE = "pixel_values"


class ByPlace(nn.Module):
    """``model`` as a function of its ``inputs`` in their order, to logits alone."""

    def __init__(self, model: nn.Module, inputs: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.inputs = tuple(inputs)

    def forward(self, *given: Tensor) -> Tensor:
        """[B, …] each → [B, C], of a tagger [B, T, C]."""
        found = self.model(**dict(zip(self.inputs, given, strict=True)))
        logits: Tensor = found if isinstance(found, Tensor) else found.logits
        return logits


class Uncarried(nn.Module):
    """A plain model whose last block only carries mean pooling, without that block.

    The block costs its share of the time, and rounding to eight bits twice more; a graph can hold
    the mean itself. With W₁, b₁ the dense layer that the carrier made linear and W₂, b₂ the last,
    the head is W₂W₁ x + W₂b₁ + b₂, in float64.
    """

    def __init__(self, plain: nn.Module, family: Family) -> None:
        super().__init__()
        dense: Any = plain.get_submodule(family.dense)
        last: Any = plain.get_submodule(family.last)
        count, width = int(last.out_features), int(dense.in_features)
        self.head = nn.Linear(width, count)
        first, second = dense.weight.double(), last.weight.double()
        first_bias, second_bias = dense.bias.double(), last.bias.double()
        if family.carry == "odd":
            # The rows of W and of −W, of which the last layer takes g(z) − g(−z) = z.
            first, first_bias = first[:count], first_bias[:count]
            second = second[:, :count]
        with torch.no_grad():
            self.head.weight.copy_(second @ first)
            self.head.bias.copy_(second @ first_bias + second_bias)
        strip_carrier(plain, family)
        backbone: Any = plain.get_submodule(family.base)
        if getattr(backbone, "pooler", None) is not None:
            backbone.pooler = None
        self.backbone = backbone
        self.pool = MeanPool()

    def forward(self, **inputs: Tensor) -> Tensor:
        """Token ids and mask [B, T] → logits [B, C]."""
        states = self.backbone(**inputs).last_hidden_state
        logits: Tensor = self.head(self.pool(states, inputs["attention_mask"]))
        return logits


@dataclass(frozen=True)
class Exportable:
    """``network`` is what is exported, a function of ``inputs`` by place; ``asked`` is the model as
    it was saved, under the same door, that it is held against; ``tokens`` is the most that a text
    may have (``None`` for a picture), ``vocabulary`` how many kinds of them there are, ``pad`` the
    one that stands for nothing; ``shape`` is that of a picture (channels, height, width)."""

    network: ByPlace
    asked: ByPlace
    inputs: tuple[str, ...]
    tokens: int | None = None
    vocabulary: int = 0
    pad: int = 0
    shape: tuple[int, ...] | None = None
    each_token: bool = False
    lean: bool = False


def of_texts(
    saved: Any, again: Any, tokenizer: Any, max_length: int, *, each_token: bool = False
) -> Exportable:
    """What is exported of a saved text classifier or tagger. ``saved`` is its plain model (or
    PEFT's around one), ``again`` a second copy, which is changed."""
    config: Any = saved.config
    inputs = accepted_inputs(config)
    plain = merged(again)
    family = FAMILIES.get(str(config.model_type))
    lean = bool(getattr(config, MARK, False)) and family is not None and not each_token
    network = Uncarried(plain, family) if lean and family is not None else plain
    return Exportable(
        ByPlace(network, inputs).eval(),
        ByPlace(saved, inputs).eval(),
        inputs,
        tokens=max_length,
        vocabulary=len(tokenizer),
        pad=int(tokenizer.pad_token_id),
        each_token=each_token,
        lean=lean,
    )


def of_pictures(saved: Any, again: Any, shape: tuple[int, ...]) -> Exportable:
    """What is exported of a saved image classifier, for pictures of ``shape``."""
    inputs = (PICTURE,)
    asked = ByPlace(saved, inputs).eval()
    return Exportable(ByPlace(merged(again), inputs).eval(), asked, inputs, shape=shape)


def merged(model: Any) -> Any:
    """The plain model with PEFT's adapter, if any, merged into its weights. Raises ``ModelError``
    where it cannot be."""
    active = getattr(model, "active_peft_config", None)
    if active is None:
        return model
    name = str(getattr(active, "peft_type", "adapter")).rpartition(".")[2].lower()
    if active.is_prompt_learning:
        raise ModelError(
            "the adapter",
            "is a learnt prompt, which is no change of weights that could be merged",
            name,
            "Train with another adapter, e.g. --set model.adapter.kind=lora.",
        )
    if any(getattr(p, "quant_state", None) is not None for p in model.parameters()):
        raise ModelError(
            "the adapter",
            "stands on quantised weights, which are not merged here",
            name,
            "Train with --set model.adapter.merge=true: the saved model is then a plain one.",
        )
    return model.merge_and_unload(safe_merge=True)
