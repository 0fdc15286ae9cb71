"""Text augmentation with models: back-translation, and substitution by a masked language model.

Back-translation translates a text into another language and back (1511.06709; as augmentation
1904.12848). ``apertium:PAIR`` uses the rules of Apertium, without a network, at about a thousand
sentences per second (``en-eo`` and back preserves meaning best of the pairs tried). Any other name
is a Transformers translation model, a folder or a hub name. A text has one such form, without
randomness.

Substitution masks some words and replaces them by words that fit (1805.06201, without its training
on labels).
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.augment.registry import (
    EachText,
    TextEnrichment,
    count_of,
    enrichment,
    load_pretrained,
)
from holdfast.augment.texts.word_edits import content_places, is_negation, split
from holdfast.core.errors import MachineError, ModelError, RecipeError
from holdfast.core.settings import setting

APERTIUM = "apertium:"
_TRANSLATION = "augment.back_translation"
LINES = re.compile(r"\s*\n\s*")
BATCH, TOKENS = 16, 256


def translated(texts: Sequence[str], through: str) -> list[str]:
    """The texts translated by ``through``, a language pair or a model.

    Raises ``MachineError`` if Apertium or the pair is not installed, ``ModelError`` if a model
    cannot be loaded.
    """
    if through.startswith(APERTIUM):
        return _by_apertium(texts, through.removeprefix(APERTIUM))
    import torch

    tokenizer, model = _model(through)
    found: list[str] = []
    for start in range(0, len(texts), BATCH):
        part = list(texts[start : start + BATCH])
        batch = tokenizer(
            part, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
        )
        batch.pop("token_type_ids", None)
        with torch.inference_mode():
            written = model.generate(**batch, max_new_tokens=TOKENS, num_beams=1, do_sample=False)
        found += tokenizer.batch_decode(written, skip_special_tokens=True)
    return found


def _by_apertium(texts: Sequence[str], pair: str) -> list[str]:
    check_pair(pair)
    # One paragraph per text: Apertium does not translate across an empty line.
    joined = "\n\n".join(LINES.sub(" ", text).strip() or "." for text in texts)
    done = subprocess.run(
        ["apertium", "-u", pair], input=joined, capture_output=True, text=True, check=False
    )
    found = [LINES.sub(" ", part).strip() for part in re.split(r"\n\s*\n", done.stdout)]
    if done.returncode or len(found) != len(texts):
        if len(texts) > 1 and not done.returncode:
            # A text with what Apertium takes for formatting may swallow the empty line.
            half = len(texts) // 2
            return _by_apertium(texts[:half], pair) + _by_apertium(texts[half:], pair)
        if not done.returncode:
            return list(texts)
        raise MachineError(
            f"apertium {pair}", "failed", done.stderr.strip()[:200], "Run it on the command line."
        )
    return found


@functools.cache
def check_pair(pair: str) -> None:
    """Raise ``MachineError`` if Apertium or this language pair is not installed."""
    if shutil.which("apertium") is None:
        remedy = (
            "Install it: apt-get install apertium apertium-eo-en. Or set translation models "
            f"({_TRANSLATION}.there, {_TRANSLATION}.back)."
        )
        raise MachineError(_TRANSLATION, "needs Apertium, which is not installed", None, remedy)
    listed = subprocess.run(["apertium", "-l"], capture_output=True, text=True, check=False)
    known = listed.stdout.split()
    if pair not in known:
        rule = "names a language pair that is not installed"
        remedy = f"Installed: {', '.join(known) or 'none'}. Others: apt-get install apertium-…."
        raise MachineError(_TRANSLATION, rule, pair, remedy)


@functools.cache
def _model(name: str) -> tuple[Any, Any]:
    remedy = f"Set {_TRANSLATION}.there and {_TRANSLATION}.back to a folder, a hub name or "
    return load_pretrained(
        "AutoModelForSeq2SeqLM", name, "a translation model", f"{remedy}{APERTIUM}PAIR."
    )


def like_first(text: str, form: str) -> str:
    """The form with its first letter in the case of the text's first letter."""
    if text[:1].islower() and form[:1].isupper() and not form[1:2].isupper():
        return form[:1].lower() + form[1:]
    return form


@enrichment(
    "back_translation",
    "text",
    "gains with unlabelled rows and a consistency loss (1904.12848), none for fine-tuned "
    "transformers (2010.01764)",
)
@dataclass(frozen=True)
class BackTranslation(TextEnrichment):
    """``there`` and ``back`` translate: ``apertium:PAIR`` or a Transformers model."""

    copies: int = setting(1, least=1, most=1)
    similarity: float = setting(0.8, least=0, most=1)
    there: str = setting(f"{APERTIUM}en-eo")
    back: str = setting(f"{APERTIUM}eo-en")

    def changes(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Each text translated there and back, without randomness."""
        new = sorted({text for text in texts if text.strip()})
        known = dict(zip(new, translated(translated(new, self.there), self.back), strict=True))
        return [like_first(text, known.get(text, text)) for text in texts]

    def ready(self) -> None:
        """Raise ``MachineError`` or ``ModelError`` if a translator is missing, and ``RecipeError``
        if both directions are the same."""
        for name in (self.there, self.back):
            if name.startswith(APERTIUM):
                check_pair(name.removeprefix(APERTIUM))
            else:
                _model(name)
        if self.there == self.back:
            rule = "must have two different directions, there and back"
            raise RecipeError(
                _TRANSLATION, rule, self.there, "E.g. apertium:en-eo and apertium:eo-en."
            )


_MASKED = "augment.masked_model"


@functools.cache
def masked_model(name: str) -> tuple[Any, Any]:
    """The tokenizer and the model of a folder or a hub name. Raises ``ModelError`` if it cannot be
    loaded or has no mask token."""
    remedy = f"Set {_MASKED}.model to a folder or a hub name, e.g. bert-base-uncased."
    model_name = "a masked language model"
    tokenizer, model = load_pretrained("AutoModelForMaskedLM", name, model_name, remedy)
    if tokenizer.mask_token_id is None:
        rule = "has no mask token"
        raise ModelError(name, rule, None, "Use a masked language model, e.g. of the BERT family.")
    return tokenizer, model


def likely_words(text: str, name: str, most: int) -> list[list[str]]:
    """For each mask of a text the ``most`` most probable tokens that are whole words of letters,
    the most probable first."""
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
    words = []
    for token in map(tokenizer.convert_ids_to_tokens, ids):
        # After another word, a whole word is separated by a space; a word piece is joined.
        written = tokenizer.convert_tokens_to_string(["x", token])
        word = token.lstrip("Ġ▁")
        if word.isalpha() and written.replace("x", "", 1).startswith(" "):
            words.append(word)
    return words


@enrichment(
    "masked_model",
    "text",
    "0.5 points on average for CNNs and RNNs (1805.06201), none for fine-tuned transformers "
    "(2010.01764)",
)
@dataclass(frozen=True, kw_only=True)
class MaskedModel(EachText):
    """``strength`` is the share of the words that are masked at once, ``likeliest`` how many of the
    model's most probable words are drawn from, ``model`` a folder or a hub name."""

    strength: float = setting(0.15, above=0, most=0.5)
    similarity: float = setting(0.8, least=0, most=1)
    copies: int = setting(4, most=10_000)
    likeliest: int = setting(10, least=1, most=1000)
    model: str = setting()

    def change(self, text: str, rng: np.random.Generator) -> str:
        """Replace some content words by predictions of the model."""
        words = split(text)
        free = content_places(words, self.protect)
        count = min(len(free), count_of(self.strength, len(words)))
        places = sorted(rng.choice(free, count, replace=False).tolist()) if free else []
        if not places:
            return text
        masked = words
        for place in places:
            masked = masked.changed(place, masked_model(self.model)[0].mask_token)
        # One by one: with padding, the last bits of a prediction depend on the other texts.
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
        """Raise ``ModelError`` if the model cannot be loaded."""
        masked_model(self.model)
