"""Labels that spread from labelled rows to others along a graph of neighbours (Zhou and others,
"Learning with local and global consistency", NeurIPS 2003).

For unit vectors x of labelled and other rows, W holds exp((x_i·x_j − 1) ÷ h) for each row and its
nearest neighbours, made symmetric; S = D^−½ W D^−½. Labels Y [n, classes] spread by

    F ← α S F + (1 − α) Y,

whose limit is (1 − α)(I − α S)^−1 Y. Where classes are many and small, most rows have neighbours
of their own class even where no labelled row is near; where classes are two, a bridge between them
carries labels across, and this does harm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints, unit_rows

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

NEIGHBOURS = 10
WIDTH = 0.1
ALPHA = 0.8
STEPS = 30
BLOCK = 1000


def neighbour_graph(vectors: Floats, neighbours: int = NEIGHBOURS) -> Any:
    """W [n, n], sparse: each row's nearest others by the cosine, made symmetric. Blocks of 1,000
    rows against all, so 1,000 × n numbers are in memory, and time grows with n²."""
    from scipy.sparse import csr_matrix

    rows = unit_rows(vectors).astype(np.float32)
    neighbours = min(neighbours, len(rows) - 1)
    neighbour_ids = np.empty((len(rows), neighbours), dtype=np.int64)
    cosine = np.empty((len(rows), neighbours), dtype=np.float64)
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK] @ rows.T
        inside = np.arange(len(block))
        block[inside, start + inside] = -np.inf
        nearest = np.argpartition(-block, neighbours - 1, axis=1)[:, :neighbours]
        neighbour_ids[start : start + BLOCK] = nearest
        cosine[start : start + BLOCK] = np.take_along_axis(block, nearest, axis=1)
    places = np.repeat(np.arange(len(rows)), neighbours)
    values = np.exp((cosine.reshape(-1) - 1) / WIDTH)
    one_way = csr_matrix((values, (places, neighbour_ids.reshape(-1))), (len(rows), len(rows)))
    return one_way.maximum(one_way.T)


def propagate(
    graph: csr_matrix,
    labels: Ints,
    *,
    classes: int,
    start: Floats | None = None,
    excluded: npt.NDArray[np.bool_] | None = None,
    alpha: float = ALPHA,
    steps: int = STEPS,
) -> Floats:
    """The share of each class [n, classes] at each row of ``graph``; each line sums to 1, or is
    even where no label came.

    ``labels`` [n] are −1 where there is none; ``start`` [n, classes] is what such rows begin with,
    shares that something else gave them. Rows ``excluded`` [n] are taken off the graph, so that
    what is said of the others is what it would be had they never been there. Every class brings
    the same mass, or the largest would cover the rest. ``alpha`` in (0, 1) says how far labels go.
    """
    from scipy.sparse import diags

    present = np.ones(len(labels)) if excluded is None else (~excluded).astype(np.float64)
    graph = diags(present) @ graph @ diags(present)
    degree = np.asarray(graph.sum(axis=1)).reshape(-1)
    root = diags(1 / np.sqrt(np.maximum(degree, 1e-12)))
    spread = (root @ graph @ root).tocsr()
    begin = np.zeros((len(labels), classes)) if start is None else start * present[:, None]
    labelled = np.flatnonzero((labels >= 0) & (present > 0))
    begin[labelled] = 0.0
    begin[labelled, labels[labelled]] = 1.0
    begin = begin / np.maximum(begin.sum(axis=0), 1e-12)
    shares = begin.copy()
    for _ in range(steps):
        shares = alpha * (spread @ shares) + (1 - alpha) * begin
    mass = shares.sum(axis=1, keepdims=True)
    return np.where(mass > 0, shares / np.where(mass > 0, mass, 1.0), 1.0 / classes)
