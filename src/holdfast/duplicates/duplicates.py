"""Which texts are copies of each other: exact after normalising, or verified near-copies.

The engine of the division and of the audit. One pass reads all texts into compact arrays
(``words.py``); exact copies become one; candidates (``candidates.py``) are verified exactly
(``verify.py``, the rule in ``criterion.py``); links are joined to groups, whose chains
are cut where they would swallow too much (``group_and_cut``).

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
from holdfast.duplicates.criterion import allowed
from holdfast.duplicates.engines import MapEngine, engine_here
from holdfast.duplicates.hashed_bags import hashed_bags, near_pairs, read_hashed
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.duplicates.verify import verify
from holdfast.duplicates.words import (
    BLOCK,
    I64,
    U64,
    ArrowTexts,
    arrow_slice,
    exact_forms,
    make_bags,
    read_texts,
)

SMALLEST = 50
SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Cut:
    """One group that was cut: different texts before, groups after, the largest of them, and the
    links that now cross groups."""

    texts: int
    groups: int
    largest: int
    links: int


def group_and_cut(texts: int, links: SimilarPairs) -> tuple[I64, tuple[Cut, ...]]:
    """Groups [n], numbered by their first text, and what was cut."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    groups = np.empty(0, np.int64)
    if texts:
        ones = np.ones(len(links), dtype=np.int8)
        graph = coo_array((ones, (links.first, links.second)), shape=(texts, texts))
        groups = connected_components(graph, directed=False)[1].astype(np.int64)
    sizes = np.bincount(groups, minlength=1)
    cuts = []
    for group in np.flatnonzero(sizes > max(SMALLEST, int(SHARE * texts))):
        mask = groups[links.first] == group
        centres = stars(texts, links.first[mask], links.second[mask])
        members = np.flatnonzero(groups == group)
        parts = np.unique(centres[members], return_counts=True)[1]
        if len(parts) > 1:
            crossing = centres[links.first[mask]] != centres[links.second[mask]]
            # Beyond all numbers in use: no other group is met.
            groups[members] = len(sizes) + centres[members]
            cuts.append(Cut(len(members), len(parts), int(parts.max()), int(crossing.sum())))
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse], tuple(cuts)


def stars(texts: int, first: I64, second: I64) -> I64:
    """The centre of each text [n]; itself for a centre and for a text without links.

    Computed in rounds: a text that comes before all its undecided neighbours is a centre, and
    they are decided. This gives the centres of taking the texts one by one.
    """
    one, other = np.concatenate([first, second]), np.concatenate([second, first])
    place = np.empty(texts, dtype=np.int64)
    # Texts are numbered by content, so ties do not depend on the file's order.
    place[np.lexsort((np.arange(texts), -np.bincount(one, minlength=texts)))] = np.arange(texts)
    centre, undecided = np.zeros(texts, dtype=bool), np.ones(texts, dtype=bool)
    a, b = one, other
    while undecided.any():
        before = np.full(texts, texts, dtype=np.int64)
        np.minimum.at(before, a, place[b])
        new = undecided & (place < before)
        centre |= new
        undecided &= ~new
        undecided[b[new[a]]] = False
        open_edges = undecided[a] & undecided[b]
        a, b = a[open_edges], b[open_edges]
    nearest = np.where(centre, place, texts)
    joins = centre[other] & ~centre[one]
    np.minimum.at(nearest, one[joins], place[other[joins]])
    return np.argsort(place)[nearest]


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
    rule is asked for these alone (``near_pairs``): the links are the same.
    """
    if engine is not None or len(texts) >= MANY:
        return find_copies_of_many(texts, seed=seed, engine=engine)
    return find_copies_of_few(texts, seed=seed)


def find_copies_of_many(
    texts: Sequence[str], *, seed: int = 0, engine: MapEngine | None = None
) -> Copies:
    """``find_copies`` in two searches: which texts can have near-copies, and the rule for these.

    Every text is read once, its words as hashes (``hashed_bags.py``). Its ``near_pairs`` finds each
    text that has another within the *number* of words in which the rule lets two differ; texts of
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
