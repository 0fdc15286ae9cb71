"""Synonyms: words of content replaced by others of the same first sense of WordNet (1901.11196).

Part of speech and inflection are kept: a word is replaced only where what it is stands clear
(``WordNet.clear_reading``), by a single word of the synset in the same form, and an article before
it follows ("a great day" → "an outstanding day").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.augment.registry import ENRICHMENTS, Enrichment
from holdfast.augment.settings import number
from holdfast.augment.texts.base import EachText, count_of
from holdfast.augment.texts.swap import EDA
from holdfast.augment.texts.wordnet import wordnet
from holdfast.augment.texts.words import FUNCTION, SplitText, free_places, split

VOWELS = "aeiou"
LEAST_LETTERS = 3


def reworded(
    text: str,
    rng: np.random.Generator,
    synonyms: Callable[[str], Sequence[str]],
    strength: float = 0.2,
    protect: Sequence[str] = (),
) -> str:
    """The text with up to ``strength`` · words of its free words replaced by synonyms of theirs."""
    words = split(text)
    left = count_of(strength, len(words))
    for place in rng.permutation(content_places(words, protect)):
        known = synonyms(words.words[place].casefold())
        if known and left:
            words, left = put(words, int(place), str(rng.choice(known))), left - 1
    return str(words)


def content_places(words: SplitText, protect: Sequence[str]) -> list[int]:
    """The free places that hold words of content."""
    return [
        place
        for place in free_places(words, protect)
        if len(words.words[place]) >= LEAST_LETTERS
        and words.words[place].isalpha()
        and words.words[place].casefold() not in FUNCTION
    ]


def put(words: SplitText, place: int, new: str) -> SplitText:
    """The words with ``new`` at ``place``, in its case, with an article that fits."""
    old = words.words[place]
    cased = new.upper() if old.isupper() and len(old) > 1 else new
    cased = cased[:1].upper() + cased[1:] if old[:1].isupper() else cased
    words = words.changed(place, cased)
    article = words.words[place - 1] if place and words.gaps[place].isspace() else ""
    if article.casefold() not in ("a", "an") or (old[0] in VOWELS) == (new[0] in VOWELS):
        return words
    fitting = "an" if new[0] in VOWELS else "a"
    fitting = fitting.capitalize() if article[0].isupper() else fitting
    return words.changed(place - 1, fitting)


@dataclass(frozen=True)
class Synonyms(EachText):
    """``strength`` is the share of the words that is replaced at most. English."""

    strength: float = number(0.2, above=0, most=1)

    def change(self, text: str, rng: np.random.Generator) -> str:
        """See ``reworded``."""
        return reworded(text, rng, wordnet().synonyms, self.strength, self.protect)

    def ready(self) -> None:
        """Raises ``MachineError`` where WordNet is not installed."""
        wordnet()


ENRICHMENTS.add("synonyms", Enrichment(Synonyms, "text", EDA))
