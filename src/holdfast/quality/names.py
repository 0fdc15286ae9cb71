"""Agreement between class names and the rows of their classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints, unit_rows
from holdfast.core.seeds import generator

LEVEL = 0.05
SHUFFLES = 1000
# Fewest rows that can contradict the name of their class.
LEAST_ROWS = 3


@dataclass(frozen=True, slots=True)
class NameAgreement:
    """``recall`` is the mean over classes of the share of rows that are nearest to their own
    class's name. ``chance`` is its mean over permuted labels, and ``p`` how often a permutation
    gives as much. ``contradicted`` are the classes of three rows or more to which, on average, more
    than half of the other names are closer than their own."""

    recall: float
    chance: float
    p: float
    contradicted: tuple[int, ...]

    @property
    def agree(self) -> bool:
        """Whether the names, taken together, identify the classes better than chance."""
        return self.recall > self.chance and self.p <= LEVEL


def compare_names(rows: Floats, labels: Ints, names: Floats, *, seed: int = 0) -> NameAgreement:
    """Compare names with rows, by vectors of one model: ``rows`` [n, width] of classes ``labels``
    [n], ``names`` [classes, width].

    Rows and names are centred separately, because short and long texts are in different regions of
    the space, and compared by cosine similarity. ``p`` comes from a permutation test of the rows'
    labels (1,000 permutations, so it is at least 0.001). Names are not fitted to rows, so no fold
    is held out. Wrong names, swapped names and abbreviations that the model does not know score at
    chance or below. So do names that only an insider understands.
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
    return NameAgreement(recall, float(np.mean(null_recalls)), p, tuple(contradicted.tolist()))


def centred(vectors: Floats) -> Floats:
    """Vectors [n, d] minus their mean, at unit length."""
    return unit_rows(np.asarray(vectors, dtype=np.float64) - np.mean(vectors, axis=0))


def _recall(nearest: Ints, labels: Ints, counts: Ints) -> float:
    """The mean recall over the classes that have rows."""
    correct = np.bincount(labels[nearest == labels], minlength=len(counts))
    return float((correct[counts > 0] / counts[counts > 0]).mean())
