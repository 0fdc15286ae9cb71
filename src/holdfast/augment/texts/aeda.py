"""AEDA: punctuation marks at random places (2108.13273).

Between 1 and a third of the number of words, marks are put before words drawn without replacement.
No word is changed, moved or lost, so the meaning survives by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.augment.registry import ENRICHMENTS, Enrichment
from holdfast.augment.settings import number
from holdfast.augment.texts.base import EachText
from holdfast.augment.texts.words import split

MARKS = (".", ";", "?", ":", "!", ",")


def punctuated(
    text: str, rng: np.random.Generator, strength: float = 1 / 3, marks: Sequence[str] = MARKS
) -> str:
    """The text with 1 … ``strength`` · words marks before some of its words, each followed by a
    space."""
    words = split(text)
    if not len(words):
        return text
    count = int(rng.integers(1, max(1, int(strength * len(words))) + 1))
    places = rng.choice(len(words), size=count, replace=False)
    chosen = {int(place): str(rng.choice(marks)) for place in places}
    pieces = []
    for place, word in enumerate(words.words):
        mark = f"{chosen[place]} " if place in chosen else ""
        pieces += [words.gaps[place], mark, word]
    return "".join([*pieces, words.gaps[-1]])


@dataclass(frozen=True)
class Aeda(EachText):
    """Marks at random places: at most ``strength`` times the number of words."""

    strength: float = number(1 / 3, above=0, most=1)

    def change(self, text: str, rng: np.random.Generator) -> str:
        """See ``punctuated``."""
        return punctuated(text, rng, self.strength)


ENRICHMENTS.add(
    "aeda",
    Enrichment(Aeda, "text", "the paper gains with RNNs and CNNs, little with BERT (2108.13273)"),
)
