"""Random insertion: a synonym of one of a text's words at a random place (1901.11196)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.augment.registry import ENRICHMENTS, Enrichment
from holdfast.augment.settings import number
from holdfast.augment.texts.base import EachText, count_of
from holdfast.augment.texts.swap import EDA
from holdfast.augment.texts.synonyms import content_places
from holdfast.augment.texts.wordnet import wordnet
from holdfast.augment.texts.words import split


def stuffed(
    text: str,
    rng: np.random.Generator,
    synonyms: Callable[[str], Sequence[str]],
    strength: float = 0.1,
    protect: Sequence[str] = (),
) -> str:
    """The text with ``strength`` · words synonyms of its own words put in at random."""
    words = split(text)
    own = [words.words[place].casefold() for place in content_places(words, protect)]
    known = [choices for word in own if (choices := synonyms(word))]
    if not known:
        return text
    for _ in range(count_of(strength, len(words))):
        word = str(rng.choice(known[int(rng.integers(len(known)))]))
        words = words.inserted(int(rng.integers(len(words) + 1)), word)
    return str(words)


@dataclass(frozen=True)
class Insert(EachText):
    """``strength`` is how many words come in, as a share of the words. English."""

    strength: float = number(0.1, above=0, most=1)

    def change(self, text: str, rng: np.random.Generator) -> str:
        """See ``stuffed``."""
        return stuffed(text, rng, wordnet().synonyms, self.strength, self.protect)

    def ready(self) -> None:
        """Raises ``MachineError`` where WordNet is not installed."""
        wordnet()


ENRICHMENTS.add("insert", Enrichment(Insert, "text", EDA))
