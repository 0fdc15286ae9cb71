"""Which rows are near one another in a space of unit vectors: the search behind semantic copies.

Exact, in blocks of NumPy, up to ``EXACT_ROWS`` rows; above that by a graph of neighbours (the
package usearch, extra ``neighbours``), which is approximate. ``near_pairs`` is what any other
search of candidates stands in for: vectors in, pairs out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import MachineError
from holdfast.core.records import Ints

Vectors = npt.NDArray[np.float32]
EXACT_ROWS = 100_000
NEIGHBOURS = 10
# Similarities held at once: 64 MiB of float32.
CELLS = 1 << 24


@dataclass(frozen=True, slots=True)
class Nearest:
    """The nearest rows of each row, the nearest first: ``index`` [n, k] and their cosine
    ``similarity`` [n, k]. Places that no row is left for hold −1 and −1.0."""

    index: Ints
    similarity: Vectors


@dataclass(frozen=True, slots=True)
class SimilarPairs:
    """Pairs of positions, or of texts by their numbers: ``first`` [m], ``second`` [m],
    ``similarity`` [m]. Within one table ``first`` < ``second`` and each pair stands once."""

    first: Ints
    second: Ints
    similarity: Vectors

    def __len__(self) -> int:
        return len(self.first)

    def where(self, mask: npt.NDArray[np.bool_] | Ints) -> SimilarPairs:
        """The pairs that ``mask`` [m] keeps, or those at these places."""
        return SimilarPairs(self.first[mask], self.second[mask], self.similarity[mask])

    def at(self, positions: Ints) -> SimilarPairs:
        """Pairs of texts by their numbers as pairs of ``positions`` [texts], the lower first."""
        one, other = positions[self.first], positions[self.second]
        return SimilarPairs(np.minimum(one, other), np.maximum(one, other), self.similarity)


def nearest(vectors: Vectors, k: int = NEIGHBOURS, among: Vectors | None = None) -> Nearest:
    """The ``k`` nearest rows by cosine of each row, itself left out; or those of ``among``.

    ``vectors`` [n, d] and ``among`` [m, d] have unit length. Raises ``MachineError`` where there
    are more than ``EXACT_ROWS`` rows to search and usearch is not installed.
    """
    own = among is None
    pool = vectors if among is None else among
    k = max(0, min(k, len(pool) - own))
    if not len(vectors) or not k:
        empty = np.empty((len(vectors), 0))
        return Nearest(empty.astype(np.int64), empty.astype(np.float32))
    if len(pool) > EXACT_ROWS:
        return _by_graph(vectors, pool, k, own)
    index = np.empty((len(vectors), k), dtype=np.int64)
    similarity = np.empty((len(vectors), k), dtype=np.float32)
    step = max(1, CELLS // len(pool))
    for start in range(0, len(vectors), step):
        part = slice(start, start + step)
        cells = vectors[part] @ pool.T
        if own:
            cells[np.arange(len(cells)), np.arange(start, start + len(cells))] = -np.inf
        best = np.argpartition(-cells, k - 1, axis=1)[:, :k]
        found = np.take_along_axis(cells, best, axis=1)
        # By position where two are equally near, or the order would be the machine's.
        order = np.lexsort((best, -found), axis=1)
        index[part] = np.take_along_axis(best, order, axis=1)
        similarity[part] = np.take_along_axis(found, order, axis=1)
    return Nearest(index, similarity)


def near_pairs(
    vectors: Vectors, least: float, among: Vectors | None = None, k: int = NEIGHBOURS
) -> SimilarPairs:
    """The pairs of at least this cosine, the most similar first, of each row with at most its ``k``
    nearest: in a crowd of alike rows each still has a pair, and there are never more than n·k."""
    return pairs_of(nearest(vectors, k, among), least, own=among is None)


def pairs_of(found: Nearest, least: float, *, own: bool) -> SimilarPairs:
    """The pairs in a list of neighbours, the most similar first; ``own`` says that both are of one
    table."""
    rows, places = np.nonzero(found.similarity >= least)
    first, second = rows.astype(np.int64), found.index[rows, places]
    similarity = found.similarity[rows, places]
    if own:
        first, second = np.minimum(first, second), np.maximum(first, second)
    # A pair of one table is seen from both of its rows.
    _, once = np.unique(np.column_stack([first, second]), axis=0, return_index=True)
    order = once[np.lexsort((second[once], first[once], -similarity[once]))]
    return SimilarPairs(first[order], second[order], similarity[order])


def shared_similarity(vectors: Vectors) -> float:
    """The mean cosine of two different rows: what all rows of a table have in common.

    Of unit vectors it is (n ‖mean‖² − 1) ÷ (n − 1), without a look at any pair. Rows of one narrow
    subject have a high one (BANKING77 0.22, CR 0.13), and so has any text in the space of a model
    that uses a cone of it (Ethayarajh 2019, 1909.00512). Fewer than two rows: 0.
    """
    n = len(vectors)
    if n < 2:
        return 0.0
    mean = vectors.mean(axis=0, dtype=np.float64)
    return float((n * (mean @ mean) - 1) / (n - 1))


def _by_graph(vectors: Vectors, pool: Vectors, k: int, own: bool) -> Nearest:
    try:
        from usearch.index import Index
    except ImportError as error:
        raise MachineError(
            "the search for near rows",
            f"needs the package usearch above {EXACT_ROWS:,} rows, which is not installed",
            None,
            "Install it: pip install 'holdfast[neighbours]'.",
        ) from error
    index = Index(ndim=pool.shape[1], metric="ip", dtype="f32")
    index.add(np.arange(len(pool), dtype=np.uint64), pool, threads=1)
    found = index.search(vectors, k + own, threads=1)
    keys = np.asarray(found.keys, dtype=np.int64)
    # usearch's distance of inner products is 1 − the product.
    similarity = 1 - np.asarray(found.distances, dtype=np.float32)
    if own:
        self_found = keys == np.arange(len(vectors))[:, None]
        # Where a row did not find itself its last neighbour gives way.
        self_found[~self_found.any(axis=1), -1] = True
        keys = keys[~self_found].reshape(len(vectors), k)
        similarity = similarity[~self_found].reshape(len(vectors), k)
    return Nearest(keys, similarity)
