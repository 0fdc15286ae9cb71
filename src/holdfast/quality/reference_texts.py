"""How like a row is to texts of a known sort, in a table that may hold some of them unknown.

A probe that parts a table from reference texts learns what the table is about, and rows that are
none of it fall on the side of the references: positive and unlabelled learning (Elkan and Noto
2008). Rows of the wanted sort that stand in the table would teach it the opposite, so that the rows
most like the references are judged, and not learned from.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from holdfast.core.records import Floats
from holdfast.duplicates.vectors import Vectors
from holdfast.models.probes.probe import fit_probe, stratified_folds

FOLDS, ROUNDS = 5, 2
PENALTY = 0.3
# So many of the rows may be of the wanted sort without teaching the probe.
LEFT_OUT = 0.15


def filler() -> list[str]:
    """Sentences as language models write them where they have nothing to say; of our own words, in
    the public domain (CC0)."""
    return Path(__file__).with_name("filler.txt").read_text("utf-8").strip().split("\n")


def likeness(vectors: Vectors, references: Vectors, first: Floats, seed: int) -> Floats:
    """The log-odds [n] of each row [n, d] to be of the ``references`` [m, d] and not of the table,
    were both as many: by a probe that was fitted without the row and without the 15 % of rows most
    like them, at first by the score ``first`` [n], then by the probe's own."""
    score, folds = first, stratified_folds(np.zeros(len(vectors), dtype=np.int64), FOLDS, seed)
    for _ in range(ROUNDS):
        learned = score <= np.quantile(score, 1 - LEFT_OUT)
        score = np.empty(len(vectors))
        for fold in range(FOLDS):
            own = vectors[learned & (folds != fold)]
            labels = np.repeat([0, 1], [len(own), len(references)])
            both = np.concatenate([own, references])
            probe = fit_probe(both, labels, classes=2, seed=seed, c=PENALTY)
            logits = probe.logits(vectors[folds == fold])
            # The numbers of texts are chance: a table of more rows is no less likely to hold some.
            chance = np.log(len(references) / max(1, len(own)))
            score[folds == fold] = logits[:, 1] - logits[:, 0] - chance
    return score


def centre_distance(vectors: Vectors) -> Floats:
    """Minus the cosine [n] of each row [n, d] of unit length with the mean of the rows, of which
    the 15 % farthest are left out twice."""
    centre = vectors.mean(axis=0, dtype=np.float64)
    for _ in range(2):
        near = vectors @ centre
        centre = vectors[near >= np.quantile(near, LEFT_OUT)].mean(axis=0, dtype=np.float64)
    found: Floats = -(vectors @ centre) / float(np.linalg.norm(centre))
    return found


def deviations(values: Floats) -> Floats:
    """How many robust deviations (1.4826 times the median absolute one) each value [n] is above
    the median (Iglewicz and Hoaglin 1993); zeros where most values are the same."""
    middle = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - middle))
    return (values - middle) / spread if spread > 1e-6 else np.zeros_like(values)
