"""Random swap: two words change places, some times over (1901.11196)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.augment.registry import ENRICHMENTS, Enrichment
from holdfast.augment.settings import number
from holdfast.augment.texts.base import EachText, count_of
from holdfast.augment.texts.words import SplitText, free_places, split

EDA = "gains for CNNs and RNNs on few rows (1901.11196), none for tuned transformers (2010.01764)"


def swapped(
    text: str, rng: np.random.Generator, strength: float = 0.1, protect: Sequence[str] = ()
) -> str:
    """The text after ``strength`` · words swaps of two of its free words (``free_places``)."""
    words = split(text)
    free = free_places(words, protect)
    if len(free) < 2:
        return text
    order = list(words.words)
    for _ in range(count_of(strength, len(words))):
        one, other = (int(place) for place in rng.choice(free, size=2, replace=False))
        order[one], order[other] = order[other], order[one]
    return str(SplitText(tuple(order), words.gaps))


@dataclass(frozen=True)
class Swap(EachText):
    """``strength`` is the number of swaps in shares of the words."""

    strength: float = number(0.1, above=0, most=1)

    def change(self, text: str, rng: np.random.Generator) -> str:
        """See ``swapped``."""
        return swapped(text, rng, self.strength, self.protect)


ENRICHMENTS.add("swap", Enrichment(Swap, "text", EDA))
