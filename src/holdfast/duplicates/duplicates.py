"""Which texts are copies of each other: exact after normalising, or verified near-copies.

The engine of the division and of the audit. One pass reads all texts into compact arrays
(``words.py``); exact copies become one; candidates (``candidates.py``) are verified exactly
(``verify.py``, the rule in ``criterion.py``); links are joined to groups (``chains.py``).

Nothing depends on the order of the texts: texts are numbered by the hash of their normal form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from holdfast.duplicates.candidates import LONG, OVERLAP, Search, can_be_near
from holdfast.duplicates.chains import Cut, group_and_cut
from holdfast.duplicates.criterion import allowed
from holdfast.duplicates.engines import MapEngine, engine_here
from holdfast.duplicates.hashed_bags import hashed_bags, read_hashed
from holdfast.duplicates.passes import near_pairs
from holdfast.duplicates.texts import ArrowTexts, arrow_slice
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.duplicates.verify import verify
from holdfast.duplicates.words import BLOCK, I64, U64, exact_forms, make_bags, read_texts

# Below it everything in memory at once is quicker, and takes a gigabyte at most.
MANY = 500_000


@dataclass(frozen=True, slots=True)
class Copies:
    """Who copies whom among n texts.

    ``groups`` [n]: equal numbers are copies, dense from 0, numbered by content; the same texts
    give the same grouping whatever their order. ``exact`` [n]: equal numbers have equal normal
    forms. ``contents`` [n]: a 64-bit hash of each text as it is. ``links``: verified near-copies
    as pairs of ``exact`` numbers, with similarities, those across a cut included. ``cuts``: groups
    that chains had made too large. ``windowed``: texts in buckets too large to be compared all
    with all, whose far copies may be linked only by chains.
    """

    groups: I64
    exact: I64
    contents: U64
    links: SimilarPairs
    cuts: tuple[Cut, ...] = ()
    windowed: int = 0

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def count(self) -> int:
        """The number of groups, those of one text included."""
        return int(self.groups.max(initial=-1)) + 1

    @property
    def sizes(self) -> I64:
        """Texts in each group, [count]."""
        return np.bincount(self.groups, minlength=self.count)

    @property
    def permitted(self) -> npt.NDArray[np.bool_]:
        """Whether each link crosses a cut, and so may cross sides, [links]."""
        group = np.empty(int(self.exact.max(initial=-1)) + 1, dtype=np.int64)
        group[self.exact] = self.groups
        return np.asarray(group[self.links.first] != group[self.links.second])

    def near_pairs(self) -> SimilarPairs:
        """The near-copies as positions of texts, each different text by its first position."""
        first = np.unique(self.exact, return_index=True)[1]
        one, other = first[self.links.first], first[self.links.second]
        low, high = np.minimum(one, other), np.maximum(one, other)
        return SimilarPairs(low, high, self.links.similarity)


def find_copies(texts: Sequence[str], *, seed: int = 0, engine: MapEngine | None = None) -> Copies:
    """Group the texts that are copies of each other.

    Parameters
    ----------
    texts : n texts; join the two of a pair with ``normalise.PAIR_MARK``.
    seed : of the MinHash that finds candidates among texts of ``candidates.LONG`` words or more.

    engine : where the first search of many texts runs; one that is named makes it run for few too.

    No texts give no groups. About 60 bytes of memory a text and 8 a word. From ``MANY`` texts
    on, a first search in bounded memory finds the texts that have a near-copy at all, and the exact
    rule is asked for these alone (``passes.py``): the links are the same.
    """
    if engine is not None or len(texts) >= MANY:
        return find_copies_of_many(texts, seed=seed, engine=engine)
    return find_copies_of_few(texts, seed=seed)


def find_copies_of_many(
    texts: Sequence[str], *, seed: int = 0, engine: MapEngine | None = None
) -> Copies:
    """``find_copies`` in two searches: which texts can have near-copies, and the rule for these.

    Every text is read once, its words as hashes (``hashed_bags.py``). ``passes.py`` finds each text
    that has another within the *number* of words in which the rule lets two differ; texts of
    ``LONG`` words less the overlap or more, of which buckets of rare words could miss some, are all
    suspects. They are a few in a hundred of ordinary data, and among them alone the exact rule is
    asked: typing errors, digits, forms with a slot, order.
    """
    engine = engine or engine_here()
    read = read_hashed(texts, engine)
    exact, chosen = exact_forms(read)
    contents = read.contents
    bags = hashed_bags(read, chosen)
    # Words of all texts: of them only the bags are needed now.
    del read
    # The two searches of ``candidates.py`` overlap, so that copies may stand on either side of
    # ``LONG``; so do these.
    most = allowed(bags.lengths)
    near, _ = near_pairs(bags, most, np.where(bags.lengths < LONG, most + 2, 0), engine)
    suspect = (bags.lengths >= LONG - OVERLAP) & can_be_near(bags)
    suspect[near.first] = suspect[near.second] = True
    suspects = np.flatnonzero(suspect)
    del bags
    few = find_copies_of_few(taken(texts, np.sort(chosen[suspects])), seed=seed)
    # Forms are numbered by the hashes of their texts there as here: in the same order.
    first, second = suspects[few.links.first], suspects[few.links.second]
    links = SimilarPairs(first, second, few.links.similarity)
    groups, cuts = group_and_cut(len(chosen), links)
    return Copies(groups[exact], exact, contents, links, cuts, few.windowed)


def taken(texts: Sequence[str], positions: I64) -> ArrowTexts:
    """The texts at ascending ``positions``, read a block at a time."""
    parts: list[Any] = []
    for begin in range(0, len(texts), BLOCK):
        low, high = np.searchsorted(positions, [begin, begin + BLOCK])
        if low < high:
            block = arrow_slice(texts, begin, min(begin + BLOCK, len(texts)))
            parts.append(block.take(pa.array(positions[low:high] - begin)))
    return ArrowTexts(pa.chunked_array(parts, pa.large_string()))


def find_copies_of_few(texts: Sequence[str], *, seed: int = 0) -> Copies:
    """``find_copies`` with everything in memory at once."""
    read = read_texts(texts)
    exact, chosen = exact_forms(read)
    bags = make_bags(read, chosen)
    search = Search(bags, seed)
    contents = read.contents
    # Words of all texts: the largest table of the search, of which only the bags are needed now.
    del read
    links = verify(bags, search.pairs())
    groups, cuts = group_and_cut(len(bags), links)
    return Copies(groups[exact], exact, contents, links, cuts, search.windowed)
