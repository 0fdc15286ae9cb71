"""How alike two texts are in what they mean, as a sentence encoder sees them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from holdfast.core.records import Floats
from holdfast.models.encoders.network import masked_mean
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.source import embedded_folder

BATCH = 32
TOKENS = 256


class MeaningModel:
    """MiniLM as it comes along (English), whatever model is trained: the vectors of a model that
    was not trained to compare sentences are all alike, and a threshold would say nothing."""

    def __init__(self) -> None:
        from transformers import AutoModel, AutoTokenizer

        with quiet_transformers():
            folder = embedded_folder()
            self._tokenizer = AutoTokenizer.from_pretrained(folder)
            self._model = AutoModel.from_pretrained(folder).eval()

    def vectors(self, texts: Sequence[str], batch: int = BATCH) -> Floats:
        """Unit vectors [n, 384], ``batch`` texts at a time; of one at a time the last bits do not
        depend on the others."""
        import torch

        found = np.zeros((len(texts), self._model.config.hidden_size), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            read = self._tokenizer(
                [texts[place] for place in chosen],
                padding=True,
                truncation=True,
                max_length=TOKENS,
                return_tensors="pt",
            )
            with torch.inference_mode():
                hidden = self._model(**read).last_hidden_state
            mean = masked_mean(hidden, read["attention_mask"])
            found[chosen] = torch.nn.functional.normalize(mean, dim=1).numpy()
        return found

    def likeness(self, ones: Sequence[str], others: Sequence[str]) -> Floats:
        """The cosine of each pair [n]."""
        cosines: Floats = (self.vectors(ones) * self.vectors(others)).sum(axis=1)
        return cosines


@functools.cache
def meaning() -> MeaningModel:
    """The encoder, loaded once a process."""
    return MeaningModel()
