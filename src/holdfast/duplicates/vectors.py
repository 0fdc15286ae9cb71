"""Nearest-neighbour search over unit vectors, as used for paraphrases.

The search is exact, in blocks of NumPy, up to ``EXACT_ROWS`` rows. Above that it uses an
approximate neighbour graph (the package usearch, extra ``neighbours``). ``similar_pairs`` is the
interface that any other candidate search may replace: vectors in, pairs out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.packages import need_packages
from holdfast.core.records import Floats, Ints

Vectors = npt.NDArray[np.float32]
EXACT_ROWS = 100_000
NEIGHBOURS = 10
# Similarities in memory at a time: 64 MiB of float32.
SIMILARITIES_AT_ONCE = 1 << 24


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest rows of each row, the nearest first: ``index`` [n, k] and their cosine
    ``similarity`` [n, k]. Missing neighbours are −1 and −1.0."""

    index: Ints
    similarity: Vectors


@dataclass(frozen=True, slots=True)
class SimilarPairs:
    """Pairs of positions, or of text numbers: ``first`` [m], ``second`` [m], ``similarity`` [m].
    Within one table ``first`` < ``second`` and each pair occurs once."""

    first: Ints
    second: Ints
    similarity: Vectors

    def __len__(self) -> int:
        return len(self.first)

    def where(self, mask: npt.NDArray[np.bool_] | Ints) -> SimilarPairs:
        """The pairs that the ``mask`` [m] selects, or those at these indices."""
        return SimilarPairs(self.first[mask], self.second[mask], self.similarity[mask])

    def at_positions(self, positions: Ints) -> SimilarPairs:
        """Pairs of text numbers as pairs of ``positions`` [texts], the lower first."""
        one, other = positions[self.first], positions[self.second]
        return SimilarPairs(np.minimum(one, other), np.maximum(one, other), self.similarity)


def nearest_neighbours(
    vectors: Floats, k: int = NEIGHBOURS, among: Floats | None = None
) -> Neighbours:
    """The ``k`` nearest other rows of each row by cosine similarity; or the nearest of ``among``.

    ``vectors`` [n, d] and ``among`` [m, d] have unit length. Raises ``MachineError`` if there are
    more than ``EXACT_ROWS`` rows to search and usearch is not installed.
    """
    same_table = among is None
    pool = vectors if among is None else among
    k = max(0, min(k, len(pool) - same_table))
    if not len(vectors) or not k:
        empty = np.empty((len(vectors), 0))
        return Neighbours(empty.astype(np.int64), empty.astype(np.float32))
    if len(pool) > EXACT_ROWS:
        return _by_graph(vectors, pool, k, same_table)
    index = np.empty((len(vectors), k), dtype=np.int64)
    similarity = np.empty((len(vectors), k), dtype=np.float32)
    step = max(1, SIMILARITIES_AT_ONCE // len(pool))
    for start in range(0, len(vectors), step):
        part = slice(start, start + step)
        similarities = vectors[part] @ pool.T
        if same_table:
            similarities[
                np.arange(len(similarities)), np.arange(start, start + len(similarities))
            ] = -np.inf
        best_rows = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
        best_similarities = np.take_along_axis(similarities, best_rows, axis=1)
        # Ties by position; otherwise the order would depend on the machine.
        order = np.lexsort((best_rows, -best_similarities), axis=1)
        index[part] = np.take_along_axis(best_rows, order, axis=1)
        similarity[part] = np.take_along_axis(best_similarities, order, axis=1)
    return Neighbours(index, similarity)


def similar_pairs(
    vectors: Vectors, min_similarity: float, among: Vectors | None = None
) -> SimilarPairs:
    """The pairs with at least this cosine similarity, the most similar first. Each row is paired
    with at most its ``NEIGHBOURS`` nearest."""
    return pairs_of(
        nearest_neighbours(vectors, among=among), min_similarity, same_table=among is None
    )


def pairs_of(neighbours: Neighbours, min_similarity: float, *, same_table: bool) -> SimilarPairs:
    """The pairs in a list of neighbours, the most similar first; ``same_table`` is whether both
    rows of a pair are in one table."""
    rows, places = np.nonzero(neighbours.similarity >= min_similarity)
    first, second = rows.astype(np.int64), neighbours.index[rows, places]
    similarity = neighbours.similarity[rows, places]
    if same_table:
        first, second = np.minimum(first, second), np.maximum(first, second)
    # A pair within a table occurs for both of its rows.
    _, unique_pairs = np.unique(np.column_stack([first, second]), axis=0, return_index=True)
    order = unique_pairs[
        np.lexsort((second[unique_pairs], first[unique_pairs], -similarity[unique_pairs]))
    ]
    return SimilarPairs(first[order], second[order], similarity[order])


def shared_similarity(vectors: Vectors) -> float:
    """The mean cosine similarity of two different rows: what all rows of a table share.

    For unit vectors it is (n ‖mean‖² − 1) ÷ (n − 1), without computing any pair. It is high for
    rows on a narrow subject (BANKING77 0.22, CR 0.13), and for any texts if the model uses only a
    narrow cone of its space (Ethayarajh 2019, 1909.00512). Fewer than two rows: 0.
    """
    n = len(vectors)
    if n < 2:
        return 0.0
    mean = vectors.mean(axis=0, dtype=np.float64)
    return float((n * (mean @ mean) - 1) / (n - 1))


def _by_graph(vectors: Floats, pool: Floats, k: int, same_table: bool) -> Neighbours:
    what = f"the search for similar rows among more than {EXACT_ROWS:,}"
    need_packages(what, "usearch", install="'holdfast[scale]'")
    from usearch.index import Index

    index = Index(ndim=pool.shape[1], metric="ip", dtype="f32")
    index.add(np.arange(len(pool), dtype=np.uint64), pool, threads=1)
    matches = index.search(vectors, k + same_table, threads=1)
    keys = np.asarray(matches.keys, dtype=np.int64)
    # usearch's distance of inner products is 1 − the product.
    similarity = 1 - np.asarray(matches.distances, dtype=np.float32)
    if same_table:
        is_self = keys == np.arange(len(vectors))[:, None]
        # If a row did not find itself, drop its last neighbour.
        is_self[~is_self.any(axis=1), -1] = True
        keys = keys[~is_self].reshape(len(vectors), k)
        similarity = similarity[~is_self].reshape(len(vectors), k)
    return Neighbours(keys, similarity)
