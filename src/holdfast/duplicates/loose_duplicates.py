"""Loose near-duplicates: texts that differ in at most a given share of their words.

The rule of ``criterion.py`` defines which rows a split must keep together; it allows one word in
eight. An audit may go further. With ``share`` = 0.3, two texts are loose near-duplicates if they
differ in at most 30 % of the words of the shorter one (one word is always allowed) and both have
five words or more. Order, template slots and digits do not matter. So it also finds questions from
one template, "What is the capital of …?", which are not duplicates. Its results are for review; no
row is dropped because of them.

Every pair is verified by its hashed words (``hashed_bags.py``). Candidates share two of their
rarest words (``pairs_within_limits``): among a million texts this held for 98 % of the pairs with
20 % of the words replaced, and for 97 % with 30 % (``benchmarks/many_texts.py``).
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

# How many of a text's rarest words define its buckets; more of them find more pairs.
RAREST_WORDS = 5


@dataclass(frozen=True, slots=True)
class LooseDuplicates:
    """``exact`` [n]: texts with equal numbers have equal normal forms; ``first_texts`` [forms] the
    position of one text of each form; ``links`` verified pairs of forms, with similarities 1 − d ÷
    (words of the larger); ``windowed`` the number of texts in buckets too large to compare in
    full."""

    exact: I64
    first_texts: I64
    links: SimilarPairs
    share: float
    windowed: int = 0

    def pairs(self) -> SimilarPairs:
        """The links as pairs of positions of texts, the lower first, in order."""
        pairs = self.links.at_positions(self.first_texts)
        return pairs.where(np.lexsort((pairs.second, pairs.first)))


def find_loose_duplicates(
    texts: Sequence[str], *, share: float = 0.3, engine: MapEngine | None = None
) -> LooseDuplicates:
    """The pairs of texts that differ in at most ``share`` of their words.

    Parameters
    ----------
    texts : n texts, read in blocks (``RowTexts`` and ``ArrowTexts`` without Python strings).
    share : the share of the words of the shorter text, in (0, 0.5].
    engine : where it runs, by default ``local_engine``; the result does not depend on it.
    """
    if not 0 < share <= 0.5:
        raise Defect("the share of differing words", "must be above 0 and at most 0.5", share)
    engine = engine or local_engine()
    hashed = read_hashed(texts, engine)
    exact, representatives = exact_forms(hashed)
    bags = hashed_bags(hashed, representatives)
    del hashed
    # Rounding may turn 0.3 · 10 into 3.0000000000000004 or 2.9999999999999996.
    max_differing = np.maximum(1, np.floor(share * bags.lengths + 1e-9))
    depth = np.full(len(bags), RAREST_WORDS, dtype=np.int64)
    links, windowed = pairs_within_limits(bags, max_differing, depth, engine)
    return LooseDuplicates(exact, representatives, links, share, windowed)
