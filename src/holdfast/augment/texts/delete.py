"""Random deletion: each word is left out by chance (1901.11196)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.augment.registry import ENRICHMENTS, Enrichment
from holdfast.augment.settings import number
from holdfast.augment.texts.base import EachText
from holdfast.augment.texts.swap import EDA
from holdfast.augment.texts.words import free_places, split


def thinned(
    text: str, rng: np.random.Generator, strength: float = 0.1, protect: Sequence[str] = ()
) -> str:
    """The text without those of its free words (``free_places``) that chance takes, each with
    probability ``strength``; of a text of one word it is kept."""
    words = split(text)
    gone = [place for place in free_places(words, protect) if rng.random() < strength]
    for place in reversed(gone[: len(words) - 1]):
        words = words.without(place, place + 1)
    return str(words)


@dataclass(frozen=True)
class Delete(EachText):
    """``strength`` is the probability that a word is left out."""

    strength: float = number(0.1, above=0, most=0.9)

    def change(self, text: str, rng: np.random.Generator) -> str:
        """See ``thinned``."""
        return thinned(text, rng, self.strength, self.protect)


ENRICHMENTS.add("delete", Enrichment(Delete, "text", EDA))
