"""EDA: one of synonyms, random insertion, swap and deletion, by chance (1901.11196)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.augment.registry import ENRICHMENTS, Enrichment
from holdfast.augment.settings import number
from holdfast.augment.texts.base import EachText
from holdfast.augment.texts.delete import thinned
from holdfast.augment.texts.insert import stuffed
from holdfast.augment.texts.swap import EDA, swapped
from holdfast.augment.texts.synonyms import reworded
from holdfast.augment.texts.wordnet import wordnet


def eased(
    text: str, rng: np.random.Generator, strength: float = 0.1, protect: Sequence[str] = ()
) -> str:
    """The text after one of the four operations, each as likely, at ``strength``."""
    way = int(rng.integers(4))
    if way < 2:
        change = (reworded, stuffed)[way]
        return change(text, rng, wordnet().synonyms, strength, protect)
    return (swapped, thinned)[way - 2](text, rng, strength, protect)


@dataclass(frozen=True)
class Eda(EachText):
    """``strength`` is the paper's α: the share of the words that an operation touches."""

    strength: float = number(0.1, above=0, most=0.9)

    def change(self, text: str, rng: np.random.Generator) -> str:
        """See ``eased``."""
        return eased(text, rng, self.strength, self.protect)

    def ready(self) -> None:
        """Raises ``MachineError`` where WordNet is not installed."""
        wordnet()


ENRICHMENTS.add("eda", Enrichment(Eda, "text", EDA))
