"""The network that is trained: backbone → pooling → dropout → one linear layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from holdfast.core.seeds import derive_seed
from holdfast.models.adapter_prompt import extended
from holdfast.models.families import Family
from holdfast.models.layers import Layer, layers_of
from holdfast.models.pooling import MeanPool, OwnPool, masked_mean

Pooling = Literal["mean", "own"]
HEAD_STD = 0.02
SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"


class EncoderClassifier(nn.Module):
    """A text classifier: ``head(dropout(features))``.

    ``features`` [B, D] is the pooled text, the exact input of the last linear layer; with mean
    pooling it is the layer-normed mean of the last hidden states, otherwise the output of the
    architecture's own pooling layers. ``save`` writes the same function as a plain folder.

    ``problem`` says what the outputs mean: one class of several, several labels, or one number.

    Inputs that the architecture does not take (``token_type_ids`` for most) are left out, so
    that one tokenizer call serves all.
    """

    config: Any
    problem: str = SINGLE_LABEL

    def __init__(
        self,
        backbone: nn.Module,
        pool: MeanPool | OwnPool,
        family: Family,
        classes: tuple[str, ...],
        dropout: float,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = pool
        self.dropout = nn.Dropout(dropout)
        self.family = family
        self.classes = classes
        self.config = backbone.config
        self.accepts = accepted_inputs(self.config)
        # skip_init: the head is drawn by reset_head, and the global generator stays as it is.
        make: Any = nn.utils.skip_init
        self.head: nn.Linear = make(nn.Linear, int(self.config.hidden_size), len(classes))
        self.reset_head(seed)

    @property
    def pooling(self) -> Pooling:
        return "mean" if isinstance(self.pool, MeanPool) or self.pool.over == "mean" else "own"

    def forward(self, **inputs: Tensor) -> Tensor:
        """Token ids [B, T] and mask [B, T] → logits [B, C]."""
        logits: Tensor = self.head(self.dropout(self.features(**inputs)))
        return logits

    def features(self, **inputs: Tensor) -> Tensor:
        """The input of the last linear layer before its dropout, [B, D]."""
        features: Tensor = self.pool(*self._states(inputs))
        return features

    def embed(self, **inputs: Tensor) -> Tensor:
        """The mean of the last hidden states over the real tokens, [B, H], whatever the head;
        neither normed nor of unit length."""
        return masked_mean(*self._states(inputs))

    def _states(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """The last hidden states and their mask, which a learnt prompt lengthens."""
        hidden, mask = self.hidden(**inputs), inputs.get("attention_mask")
        if mask is not None and hidden.shape[1] > mask.shape[1]:
            mask = extended(mask, hidden.shape[1] - mask.shape[1])
        return hidden, mask

    def hidden(self, **inputs: Tensor) -> Tensor:
        """The last hidden states of all tokens, [B, T, H]."""
        taken = {name: value for name, value in inputs.items() if name in self.accepts}
        states: Tensor = self.backbone(**taken).last_hidden_state
        return states

    def layers(self) -> list[Layer]:
        """The layers in the order of the computation: embeddings, blocks, own pooling, head."""
        return layers_of(self)

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The table of word embeddings, [vocabulary, E]."""
        table: nn.Embedding = self.backbone.get_input_embeddings()  # type: ignore[operator]
        return table

    def reset_head(self, seed: int) -> None:
        """Draw the head anew: weights normal with deviation 0.02, bias zero."""
        generator = torch.Generator().manual_seed(derive_seed(seed, "head"))
        drawn = torch.randn(self.head.weight.shape, generator=generator) * HEAD_STD
        with torch.no_grad():
            self.head.weight.copy_(drawn)
            self.head.bias.zero_()

    def save(self, folder: Path, tokenizer: Any, temperature: float = 1.0) -> None:
        """Write a folder that plain ``AutoModelForSequenceClassification`` loads without remote
        code, giving these logits ÷ ``temperature``. See ``models/export.py``."""
        from holdfast.models.export import export

        export(self, folder, tokenizer, temperature)


def accepted_inputs(config: Any) -> tuple[str, ...]:
    """The tokenizer's outputs that a backbone with this configuration can take."""
    segments = int(getattr(config, "type_vocab_size", 0) or 0)
    return ("input_ids", "attention_mask") + (("token_type_ids",) if segments > 1 else ())
