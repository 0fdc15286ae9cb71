"""Loose near-duplicates: texts that differ in a share of their words that the caller names.

The rule of ``criterion.py`` says which rows a division must not part; it allows one word in eight.
An audit may look further: with ``share`` = 0.3 two texts are loose near-duplicates when they differ
in at most three words in ten of the shorter one (at least in one), both have five words or more,
and nothing else is asked: order, slots of a form and digits do not count. So it also finds the
questions of one form, "What is the capital of …?", which are no copies: it is for looking, and
nothing is dropped for it.

Every pair is verified by its hashed words (``hashed_bags.py``). Candidates share two of their
rarest words (``pairs_within_limits``): of a million texts with two tenths of the words replaced by
others 98 pairs in 100 did, with three tenths 97 (``benchmarks/many_texts.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.errors import Defect
from holdfast.duplicates.engines import MapEngine, local_engine
from holdfast.duplicates.hashed_bags import hashed_bags, pairs_within_limits, read_hashed
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.duplicates.words import I64, exact_forms

# Of the rarest words of a text, so many make its buckets; more find more.
RAREST_WORDS = 5


@dataclass(frozen=True, slots=True)
class LooseDuplicates:
    """``exact`` [n]: equal numbers have equal normal forms; ``first_texts`` [forms] the position of
    one text of each; ``links`` verified pairs of forms, with similarities 1 − d ÷ (words of the
    larger); ``windowed`` texts in buckets too large to be compared in full."""

    exact: I64
    first_texts: I64
    links: SimilarPairs
    share: float
    windowed: int = 0

    def pairs(self) -> SimilarPairs:
        """The links as positions of texts, lower first, in order."""
        pairs = self.links.at_positions(self.first_texts)
        return pairs.where(np.lexsort((pairs.second, pairs.first)))


def find_loose_duplicates(
    texts: Sequence[str], *, share: float = 0.3, engine: MapEngine | None = None
) -> LooseDuplicates:
    """The pairs of texts that differ in at most ``share`` of their words.

    Parameters
    ----------
    texts : n texts, read in blocks (``RowTexts``, ``ArrowTexts`` without a Python string).
    share : of the words of the shorter text, in (0, 0.5].
    engine : where it runs, by default as ``local_engine`` says; the result is the same.
    """
    if not 0 < share <= 0.5:
        raise Defect("the share of differing words", "must be above 0 and at most 0.5", share)
    engine = engine or local_engine()
    hashed = read_hashed(texts, engine)
    exact, representatives = exact_forms(hashed)
    bags = hashed_bags(hashed, representatives)
    del hashed
    # 0.3 · 10 is 3.0000000000000004 or 2.9999999999999996 by the way it comes about.
    max_differing = np.maximum(1, np.floor(share * bags.lengths + 1e-9))
    depth = np.full(len(bags), RAREST_WORDS, dtype=np.int64)
    links, windowed = pairs_within_limits(bags, max_differing, depth, engine)
    return LooseDuplicates(exact, representatives, links, share, windowed)
