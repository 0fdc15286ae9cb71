"""Substitution by a masked language model: some words are hidden, and others that fit are put there
(1805.06201, without its training on labels).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.augment.registry import enrichment, setting
from holdfast.augment.texts.base import EachText, count_of, load_pretrained
from holdfast.augment.texts.word_edits import content_places
from holdfast.augment.texts.words import is_negation, split
from holdfast.core.errors import ModelError

SETTING = "enrich.masked_model"


@functools.cache
def masked_model(name: str) -> tuple[Any, Any]:
    """The tokenizer and the model, by a folder or a name on the hub. Raises ``ModelError`` where it
    cannot be loaded or has no mask."""
    remedy = f"Give {SETTING}.model a folder or a name on the hub, e.g. bert-base-uncased."
    what = "a masked language model"
    tokenizer, model = load_pretrained("AutoModelForMaskedLM", name, what, remedy)
    if tokenizer.mask_token_id is None:
        rule = "has no token that stands for a hidden word"
        raise ModelError(name, rule, None, "Choose a masked language model, e.g. of BERT's family.")
    return tokenizer, model


def likely_words(text: str, name: str, most: int) -> list[list[str]]:
    """For each mask of a text the ``most`` likeliest tokens that are whole words of letters,
    likeliest first."""
    import torch

    tokenizer, model = masked_model(name)
    longest = min(int(tokenizer.model_max_length), model.config.max_position_embeddings)
    batch = tokenizer([text], truncation=True, max_length=longest, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**batch).logits[0]
    masks = (batch["input_ids"][0] == tokenizer.mask_token_id).nonzero().flatten()
    ranked = logits[masks].topk(min(4 * most, logits.shape[-1])).indices
    return [_whole_words(tokenizer, line.tolist())[:most] for line in ranked]


def _whole_words(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    found = []
    for token in map(tokenizer.convert_ids_to_tokens, ids):
        # What is alone after a word is a word; a piece of one joins it.
        written = tokenizer.convert_tokens_to_string(["x", token])
        word = token.lstrip("Ġ▁")
        if word.isalpha() and written.replace("x", "", 1).startswith(" "):
            found.append(word)
    return found


@enrichment(
    "masked_model",
    "text",
    "0.5 points on average for CNNs and RNNs (1805.06201), none for tuned transformers "
    "(2010.01764)",
)
@dataclass(frozen=True, kw_only=True)
class MaskedModel(EachText):
    """``strength`` is the share of the words that are hidden at once, ``likeliest`` how many of the
    model's answers chance draws from, ``model`` a folder or a name on the hub."""

    strength: float = setting(0.15, above=0, most=0.5)
    similarity: float = setting(0.8, least=0, most=1)
    copies: int = setting(4, most=10_000)
    likeliest: int = setting(10, least=1, most=1000)
    model: str = setting()

    def change(self, text: str, rng: np.random.Generator) -> str:
        """Words of content hidden, and answers of the model in their place."""
        words = split(text)
        free = content_places(words, self.protect)
        count = min(len(free), count_of(self.strength, len(words)))
        places = sorted(rng.choice(free, count, replace=False).tolist()) if free else []
        if not places:
            return text
        masked = words
        for place in places:
            masked = masked.changed(place, masked_model(self.model)[0].mask_token)
        # One by one: padding moves the last bits of a model's answers with the company.
        answers = likely_words(str(masked), self.model, self.likeliest + 1)
        for place, known in zip(places, answers, strict=False):
            old = words.words[place]
            fitting = [
                word
                for word in known
                if word.casefold() != old.casefold() and not is_negation(word)
            ]
            if fitting:
                new = str(rng.choice(fitting[: self.likeliest]))
                new = new[:1].upper() + new[1:] if old[:1].isupper() else new
                words = words.changed(place, new)
        return str(words)

    def ready(self) -> None:
        """Raises ``ModelError`` where the model cannot be loaded."""
        masked_model(self.model)
