"""From the last hidden states of all tokens [B, T, H] to the features that the last layer reads:
one row of them [B, D] a text, or one a token [B, T, D]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

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
    architecture (see ``models/carry.py``); trained with it, the saved model is the same model.
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
