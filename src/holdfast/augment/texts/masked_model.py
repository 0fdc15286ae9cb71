"""Substitution by a masked language model: some words are hidden, and others that fit are put there
(1805.06201, without its training on labels).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.augment.registry import ENRICHMENTS, Enrichment
from holdfast.augment.settings import number, whole, words
from holdfast.augment.texts.base import TextEnrichment, count_of
from holdfast.augment.texts.synonyms import content_places
from holdfast.augment.texts.words import is_negation, split
from holdfast.core.errors import ModelError

SETTING = "enrich.masked_model"
BATCH = 16


@functools.cache
def masked_model(name: str) -> tuple[Any, Any]:
    """The tokenizer and the model, by a folder or a name on the hub. Raises ``ModelError`` where it
    cannot be loaded or has no mask."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    from holdfast.models.loading.quiet import quiet_transformers

    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(name)
            model = AutoModelForMaskedLM.from_pretrained(name).eval()
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            name,
            f"cannot be loaded as a masked language model: {str(error).splitlines()[0][:200]}",
            None,
            f"Give {SETTING}.model a folder or a name on the hub, e.g. bert-base-uncased.",
        ) from error
    if tokenizer.mask_token_id is None:
        rule = "has no token that stands for a hidden word"
        raise ModelError(name, rule, None, "Choose a masked language model, e.g. of BERT's family.")
    return tokenizer, model


def likely_words(texts: Sequence[str], name: str, most: int) -> list[list[list[str]]]:
    """For each mask of each text the ``most`` likeliest tokens that are whole words of letters,
    likeliest first."""
    import torch

    tokenizer, model = masked_model(name)
    found: list[list[list[str]]] = []
    longest = min(int(tokenizer.model_max_length), model.config.max_position_embeddings)
    for start in range(0, len(texts), BATCH):
        batch = tokenizer(
            list(texts[start : start + BATCH]),
            padding=True,
            truncation=True,
            max_length=longest,
            return_tensors="pt",
        )
        with torch.inference_mode():
            logits = model(**batch).logits
        for row, ids in enumerate(batch["input_ids"]):
            masks = (ids == tokenizer.mask_token_id).nonzero().flatten()
            ranked = logits[row, masks].topk(min(4 * most, logits.shape[-1])).indices
            found.append([_whole(tokenizer, line.tolist())[:most] for line in ranked])
    return found


def _whole(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    # What is alone after a word is a word; a piece of one joins it.
    written = [
        tokenizer.convert_tokens_to_string(["x", tokenizer.convert_ids_to_tokens(i)]) for i in ids
    ]
    joined = [tokenizer.convert_ids_to_tokens(i) for i in ids]
    words = [token.lstrip("Ġ▁") for token in joined]
    return [
        word
        for word, text in zip(words, written, strict=True)
        if word.isalpha() and text.replace("x", "", 1).startswith(" ")
    ]


@dataclass(frozen=True, kw_only=True)
class MaskedModel(TextEnrichment):
    """``strength`` is the share of the words that are hidden at once, ``likeliest`` how many of the
    model's answers chance draws from, ``model`` a folder or a name on the hub."""

    strength: float = number(0.15, above=0, most=0.5)
    similarity: float = number(0.8, least=0, most=1)
    copies: int = whole(4, most=10_000)
    likeliest: int = whole(10, least=1, most=1000)
    model: str = words()

    def changes(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Words of content hidden, and answers of the model in their place."""
        mask = masked_model(self.model)[0].mask_token
        every, chances, hidden, places = [], [], [], []
        for text, seed in zip(texts, seeds, strict=True):
            here, rng = split(text), np.random.default_rng(seed)
            free = content_places(here, self.protect)
            count = min(len(free), count_of(self.strength, len(here)))
            chosen = (
                sorted(int(one) for one in rng.choice(free, count, replace=False)) if free else []
            )
            masked = here
            for place in chosen:
                masked = masked.changed(place, mask)
            every.append(here)
            chances.append(rng)
            hidden.append(str(masked))
            places.append(chosen)
        asked = [k for k, chosen in enumerate(places) if chosen]
        # One by one: padding moves the last bits of a model's answers with the company.
        answers = {k: likely_words([hidden[k]], self.model, self.likeliest + 1)[0] for k in asked}
        for k in asked:
            for place, known in zip(places[k], answers[k], strict=False):
                old = every[k].words[place]
                fitting = [
                    word
                    for word in known
                    if word.casefold() != old.casefold() and not is_negation(word)
                ]
                if fitting:
                    new = str(chances[k].choice(fitting[: self.likeliest]))
                    new = new[:1].upper() + new[1:] if old[:1].isupper() else new
                    every[k] = every[k].changed(place, new)
        return [str(one) for one in every]

    def ready(self) -> None:
        """Raises ``ModelError`` where the model cannot be loaded."""
        masked_model(self.model)


ENRICHMENTS.add(
    "masked_model",
    Enrichment(
        MaskedModel,
        "text",
        "0.5 points on average for CNNs and RNNs (1805.06201), none for tuned transformers "
        "(2010.01764)",
    ),
)
