"""Loose copies: texts that differ in a share of their words that the caller names.

The rule of ``criterion.py`` says which rows a division must not part; it allows one word in eight.
An audit may look further: with ``share`` = 0.3 two texts are loose copies when they differ in at
most three words in ten of the shorter one (at least in one), both have five words or more, and
nothing else is asked: order, slots of a form and digits do not count. So it also finds the
questions of one form, "What is the capital of …?", which are no copies: it is for looking, and
nothing is dropped for it.

Every pair is verified by its hashed words (``hashed_bags.py``). Candidates share two of their
rarest words (``passes.py``): of a million texts with two tenths of the words replaced by others 98
pairs in 100 did, with three tenths 97 (``benchmarks/many_texts.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import Defect
from holdfast.duplicates.candidates import can_be_near
from holdfast.duplicates.engines import MapEngine, engine_here
from holdfast.duplicates.hashed_bags import hashed_bags, read_hashed
from holdfast.duplicates.passes import depths_of, near_pairs
from holdfast.duplicates.verify import Links
from holdfast.duplicates.words import I64, Bags, exact_forms

DEPTH = 5


@dataclass(frozen=True, slots=True)
class LooseCopies:
    """``exact`` [n]: equal numbers have equal normal forms; ``first`` [forms] the position of one
    text of each; ``links`` verified pairs of forms, with similarities 1 − d ÷ (words of the
    larger); ``windowed`` texts in buckets too large to be compared in full."""

    exact: I64
    first: I64
    links: Links
    share: float
    windowed: int = 0

    def pairs(self) -> Links:
        """The links as positions of texts, lower first, in order."""
        one, other = self.first[self.links.first], self.first[self.links.second]
        low, high = np.minimum(one, other), np.maximum(one, other)
        order = np.lexsort((high, low))
        return Links(low[order], high[order], self.links.similarity[order])


def find_loose_copies(
    texts: Sequence[str], *, share: float = 0.3, engine: MapEngine | None = None, depth: int = DEPTH
) -> LooseCopies:
    """The pairs of texts that differ in at most ``share`` of their words.

    Parameters
    ----------
    texts : n texts, read in blocks (``RowTexts``, ``ArrowTexts`` without a Python string).
    share : of the words of the shorter text, in (0, 0.5].
    engine : where it runs, by default as ``engine_here`` says; the result is the same.
    depth : of the rarest words of a text, how many make its buckets; more find more.
    """
    if not 0 < share <= 0.5:
        raise Defect("the share of differing words", "must be above 0 and at most 0.5", share)
    engine = engine or engine_here()
    read = read_hashed(texts, engine)
    exact, chosen = exact_forms(read)
    bags = hashed_bags(read, chosen)
    del read
    wanted = np.full(len(bags), depth, dtype=np.int64)
    links, windowed = near_pairs(bags, loose_limits(bags, share), depths_of(bags, wanted), engine)
    return LooseCopies(exact, chosen, links, share, windowed)


def loose_limits(bags: Bags, share: float) -> npt.NDArray[np.int16]:
    """The most words in which each text may differ from a longer one [rows]; -1 for one that is
    too short to have near-copies."""
    # 0.3 · 10 is 3.0000000000000004 or 2.9999999999999996 by the way it comes about.
    words = np.floor(share * bags.lengths + 1e-9)
    limits = np.maximum(1, words)
    limits = np.minimum(limits, np.iinfo(np.int16).max)
    return np.where(can_be_near(bags), limits, -1).astype(np.int16)
