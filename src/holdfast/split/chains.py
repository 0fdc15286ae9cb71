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

from holdfast.split.verify import Links
from holdfast.split.words import I64

SMALLEST = 50
SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Cut:
    """One group that was cut: different texts before, groups after, the largest of them, and the
    links that now cross groups."""

    texts: int
    groups: int
    largest: int
    links: int


def limit(texts: int) -> int:
    """The most different texts that a group may link by chains."""
    return max(SMALLEST, int(SHARE * texts))


def components(texts: int, links: Links) -> I64:
    """A group number for each text [n]: everything that links reach."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(links), dtype=np.int8)
    graph = coo_array((ones, (links.first, links.second)), shape=(texts, texts))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def group_and_cut(texts: int, links: Links) -> tuple[I64, tuple[Cut, ...]]:
    """Groups [n], numbered by their first text, and what was cut."""
    groups = components(texts, links) if texts else np.empty(0, np.int64)
    sizes = np.bincount(groups, minlength=1)
    cuts = []
    following = len(sizes)
    for group in np.flatnonzero(sizes > limit(texts)):
        mask = groups[links.first] == group
        stars = _stars(links.first[mask], links.second[mask])
        members = np.array(list(stars), dtype=np.int64)
        labels = np.array(list(stars.values()), dtype=np.int64)
        crossing = sum(
            stars[a] != stars[b]
            for a, b in zip(links.first[mask].tolist(), links.second[mask].tolist(), strict=True)
        )
        if len(np.unique(labels)) > 1:
            groups[members] = following + labels
            following += texts
            parts = np.unique(labels, return_counts=True)[1]
            cuts.append(Cut(len(members), len(parts), int(parts.max()), crossing))
    return _by_first(groups), tuple(cuts)


def _stars(first: I64, second: I64) -> dict[int, int]:
    """The centre of each text of one component."""
    neighbours: dict[int, list[int]] = {}
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    centre: dict[int, int] = {}
    for text in sorted(neighbours, key=lambda text: (-len(neighbours[text]), text)):
        if text not in centre:
            centre[text] = text
            for other in neighbours[text]:
                centre.setdefault(other, text)
    return centre


def _by_first(groups: I64) -> I64:
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
