"""Class names against the rows of their classes: does a name say what its rows say?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator

LEVEL = 0.05
SHUFFLES = 1000
# A class with fewer rows says too little against its own name.
LEAST_ROWS = 3


@dataclass(frozen=True, slots=True)
class NameAgreement:
    """``recall`` is the mean over classes of the share of their rows that are nearest to their own
    class's name, ``chance`` what rows without a meaning would give and ``p`` how often they would
    give as much. ``further`` [classes] is the mean share of the other names that lie nearer to a
    class's rows than its own (NaN without rows); ``contradicted`` are the classes where that is
    above one half, their rows being three at least."""

    recall: float
    chance: float
    p: float
    further: Floats
    contradicted: tuple[int, ...]

    @property
    def agree(self) -> bool:
        """Whether the names, taken together, tell the classes better than chance does."""
        return self.recall > self.chance and self.p <= LEVEL


def compare_names(rows: Floats, labels: Ints, names: Floats, *, seed: int = 0) -> NameAgreement:
    """Hold names against rows, by vectors of one model: ``rows`` [n, width] of classes ``labels``
    [n], ``names`` [classes, width].

    Rows and names are each centred, for short texts and long ones lie in different places of the
    space, and compared by the cosine. ``p`` is that of a permutation test over the labels of the
    rows (1,000 shuffles, so at least 0.001): no name was fitted to any row, so no fold is held out.
    Wrong names, swapped ones and abbreviations that the model does not know score at chance or
    below; words that only one reader would connect do too, which is the price.
    """
    classes = len(names)
    similarity = centred(rows) @ centred(names).T
    nearest = similarity.argmax(axis=1)
    own_similarity = similarity[np.arange(len(labels)), labels]
    nearer_share = (similarity > own_similarity[:, None]).sum(axis=1) / max(1, classes - 1)
    counts = np.bincount(labels, minlength=classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        further = np.bincount(labels, nearer_share, minlength=classes) / counts
    recall = _recall(nearest, labels, counts)
    random = generator(seed, "class names")
    null_recalls = [_recall(nearest, random.permutation(labels), counts) for _ in range(SHUFFLES)]
    p = (1 + sum(value >= recall - 1e-12 for value in null_recalls)) / (SHUFFLES + 1)
    contradicted = np.flatnonzero((counts >= LEAST_ROWS) & (np.nan_to_num(further) > 0.5))
    return NameAgreement(
        recall, float(np.mean(null_recalls)), p, further, tuple(contradicted.tolist())
    )


def centred(vectors: Floats) -> Floats:
    """Vectors [n, d] less their mean, at unit length."""
    shifted = np.asarray(vectors, dtype=np.float64) - np.mean(vectors, axis=0)
    length = np.linalg.norm(shifted, axis=1, keepdims=True)
    return np.asarray(shifted / np.where(length == 0, 1.0, length))


def _recall(nearest: Ints, labels: Ints, counts: Ints) -> float:
    """The mean of the classes' recalls, over those with rows."""
    correct = np.bincount(labels[nearest == labels], minlength=len(counts))
    return float((correct[counts > 0] / counts[counts > 0]).mean())
