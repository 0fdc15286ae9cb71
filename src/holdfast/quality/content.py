"""What a probe on the vectors expects of a row from what it says, fitted without that row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints
from holdfast.duplicates.vectors import Vectors
from holdfast.models.probes.probe import Probe, fit_probe, stratified_folds

FOLDS = 5
PENALTY = 0.3
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ContentProbes:
    """One probe a fold, and the ``fold`` of each row [n]: −1 for a row that every probe may judge,
    as its label is not known or it is the only one of its class."""

    probes: tuple[Probe, ...]
    fold: Ints

    def chances(self, rows: Ints, vectors: Vectors) -> Array:
        """The probabilities [m, classes] of vectors [m, d] that stand for these rows, each by the
        probe that was fitted without the row."""
        from scipy.special import softmax

        logits = np.empty((len(rows), len(self.probes[0].bias)))
        folds = np.maximum(self.fold[rows], 0)
        for fold, probe in enumerate(self.probes):
            mine = folds == fold
            logits[mine] = probe.logits(vectors[mine])
        made: Array = softmax(logits, axis=1)
        return made

    def leaning(self, vectors: Vectors, labels: Ints, direction: Floats) -> Array:
        """Whether the labels put anything on a ``direction`` [d] of the space: a two-sided p-value
        for each class [classes].

        The weight that ridge regression gives the direction is a sum over rows aᵢ yᵢ, with a = X
        (XᵀX + λI)⁻¹ direction. Were the labels drawn anew, each with its expected chance p̂ᵢ, the
        sum would vary by √Σ aᵢ² p̂ᵢ(1 − p̂ᵢ). λ is the penalty of the probes at a logistic
        regression's largest curvature.
        """
        from scipy.special import ndtr

        known = np.flatnonzero(labels >= 0)
        x = vectors[known].astype(np.float64)
        x -= x.mean(axis=0)
        x /= float(np.sqrt(x.var(axis=0).mean())) or 1.0
        inverse = np.linalg.solve(x.T @ x + 4 / PENALTY * np.eye(x.shape[1]), direction)
        shares = x @ inverse
        chances = self.chances(known, vectors[known])
        drawn = labels[known][:, None] == np.arange(chances.shape[1])
        error = np.sqrt((shares[:, None] ** 2 * chances * (1 - chances)).sum(axis=0))
        weight = np.abs(shares @ (drawn - drawn.mean(axis=0)))
        made: Array = 2 * ndtr(-weight / np.maximum(error, 1e-12))
        return made


def expect(vectors: Vectors, labels: Ints, classes: int, seed: int) -> ContentProbes | None:
    """Cross-fitted probes of the labels [n] on the vectors [n, d]; ``None`` where fewer than two
    classes have two rows."""
    known = np.flatnonzero(labels >= 0)
    folds: Ints = np.full(len(labels), -1, dtype=np.int64)
    folds[known] = stratified_folds(labels[known], FOLDS, seed)
    counts = np.bincount(labels[known], minlength=classes)
    if (counts >= 2).sum() < 2:
        return None
    probes = []
    for fold in range(FOLDS):
        part = known[folds[known] != fold]
        probes.append(fit_probe(vectors[part], labels[part], classes=classes, seed=seed, c=PENALTY))
    return ContentProbes(tuple(probes), folds)
