"""Rows whose labels teach a head on frozen vectors most, together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints

Bools = npt.NDArray[np.bool_]

# The prior precision of a head's weights, in rows; chosen on seeds that no figure is from.
RIDGE = 0.3
LEAST_DOUBT = 1e-3
# Rows as alike as this (cosine) are copies: one of them is enough.
COPIES = 0.99
WIDEST = 512


def design(
    vectors: Floats, doubt: Floats, known: Bools, free: Bools, n: int
) -> tuple[Ints, Floats]:
    """The positions of up to ``n`` free rows, the most worthwhile first, and what each was worth.

    With M = λI + Σ w x xᵀ over the labelled and chosen rows, the mean variance of a weighted
    least-squares head over all rows is tr(M⁻¹ G), G = Σ w x xᵀ / N; each next row is the one that
    lowers it most: w · xᵀM⁻¹GM⁻¹x / (1 + w · xᵀM⁻¹x). So a row is worth much where the model
    doubts (w), where many rows are like it (G), and where none that is labelled is (M). It is the
    greedy forward step of BAIT (2106.09675) with one weight a row, its doubt, in place of the
    classes' own Fisher information.

    vectors [n, d] as ``scaled`` gives them, doubt [n] in [0, 1], known and free [n].
    Siblings: ``quality/label_ranking.py`` (margin × distance) needs many classes to pay.
    """
    # The directions in which rows differ most, where there are more than WIDEST.
    if vectors.shape[1] <= WIDEST:
        x = vectors
    else:
        _, axes = np.linalg.eigh(vectors.T @ vectors)
        x = np.asarray(vectors @ axes[:, -WIDEST:], dtype=np.float32)
    x = np.concatenate([x, np.ones((len(x), 1), x.dtype)], axis=1)
    weight = np.maximum(doubt, LEAST_DOUBT).astype(np.float32)
    width = x.shape[1]
    taught = RIDGE * np.eye(width) + (x[known] * weight[known, None]).T @ x[known]
    inverse = np.linalg.inv(taught)
    spread = ((x * weight[:, None]).T @ x / len(x)).astype(np.float32)
    # Of each row: M⁻¹x, xᵀM⁻¹x and xᵀM⁻¹GM⁻¹x, kept up to date as rows join (Sherman–Morrison).
    seen = (x @ inverse).astype(np.float32)
    height = (seen * x).sum(axis=1)
    gain = ((seen @ spread) * seen).sum(axis=1)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    left = free & ~known
    for at in np.flatnonzero(known):
        left &= unit @ unit[at] < COPIES
    chosen: list[int] = []
    worth: list[float] = []
    while len(chosen) < n and left.any():
        score = np.where(left, weight * gain / (1 + weight * height), -1.0)
        best = int(np.argmax(score))
        chosen.append(best)
        worth.append(float(score[best]))
        left &= unit @ unit[best] < COPIES
        left[best] = False
        u = seen[best].copy()
        step = float(weight[best] / (1 + weight[best] * height[best]))
        along, of_spread = x @ u, spread @ u
        gain += -2 * step * along * (seen @ of_spread) + (step * along) ** 2 * float(u @ of_spread)
        height -= step * along**2
        seen -= step * np.outer(along, u)
    return np.array(chosen, dtype=np.int64), np.array(worth)
