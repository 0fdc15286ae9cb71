"""Links → groups, and the cut of chains that would swallow too much.

A is a copy of B, B of C, … : the group of A can reach texts that have nothing to do with A. A
group of more than ``max(SMALLEST, SHARE × texts)`` different texts is therefore cut into stars:
the texts are taken by their number of links (most first; ties by content), each that is still
free becomes a centre, and its free neighbours join it. In a star every text is a verified copy of
the centre; a true cluster, all copies of one original, stays whole, a chain falls apart. Exact
copies are one text here and are never parted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.duplicates.vectors import SimilarPairs
from holdfast.duplicates.words import I64

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
