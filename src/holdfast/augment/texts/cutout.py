"""Span cut-out: a stretch of neighbouring words is left out, as a square of a picture is.

2009.13818 calls it span cutoff.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.augment.registry import ENRICHMENTS, Enrichment
from holdfast.augment.settings import number
from holdfast.augment.texts.base import EachText, count_of
from holdfast.augment.texts.words import free_places, split


def cut_out(
    text: str, rng: np.random.Generator, strength: float = 0.2, protect: Sequence[str] = ()
) -> str:
    """The text without ``strength`` · words neighbouring words, all of them free
    (``free_places``); as it is, where no stretch of free words is that long."""
    words = split(text)
    size = min(count_of(strength, len(words)), len(words) - 1)
    free = set(free_places(words, protect))
    begins = [at for at in range(len(words) - size + 1) if all(at + k in free for k in range(size))]
    if size < 1 or not begins:
        return text
    begin = int(rng.choice(begins))
    return str(words.without(begin, begin + size))


@dataclass(frozen=True)
class Cutout(EachText):
    """``strength`` is the share of the words that the stretch holds."""

    strength: float = number(0.2, above=0, most=0.5)

    def change(self, text: str, rng: np.random.Generator) -> str:
        """See ``cut_out``."""
        return cut_out(text, rng, self.strength, self.protect)


ENRICHMENTS.add(
    "cutout",
    Enrichment(Cutout, "text", "gains of about a point with a consistency loss (2009.13818)"),
)
