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
EXCLUDED_SHARE = 0.15


def filler_texts() -> list[str]:
    """Sentences as language models write them where they have nothing to say; of our own words, in
    the public domain (CC0)."""
    return Path(__file__).with_name("filler.txt").read_text("utf-8").strip().split("\n")


def reference_log_odds(
    vectors: Vectors, references: Vectors, first_score: Floats, seed: int
) -> Floats:
    """The log-odds [n] of each row [n, d] to be of the ``references`` [m, d] and not of the table,
    were both as many: by a probe that was fitted without the row and without the 15 % of rows most
    like them, at first by the score ``first_score`` [n], then by the probe's own."""
    score, folds = (
        first_score,
        stratified_folds(np.zeros(len(vectors), dtype=np.int64), FOLDS, seed),
    )
    for _ in range(ROUNDS):
        in_table = score <= np.quantile(score, 1 - EXCLUDED_SHARE)
        score = np.empty(len(vectors))
        for fold in range(FOLDS):
            table_vectors = vectors[in_table & (folds != fold)]
            labels = np.repeat([0, 1], [len(table_vectors), len(references)])
            vectors_ = np.concatenate([table_vectors, references])
            probe = fit_probe(vectors_, labels, classes=2, seed=seed, c=PENALTY)
            logits = probe.logits(vectors[folds == fold])
            # The numbers of texts are chance: a table of more rows is no less likely to hold some.
            prior_log_odds = np.log(len(references) / max(1, len(table_vectors)))
            score[folds == fold] = logits[:, 1] - logits[:, 0] - prior_log_odds
    return score


def centre_distance(vectors: Vectors) -> Floats:
    """Minus the cosine [n] of each row [n, d] of unit length with the mean of the rows, of which
    the 15 % farthest are left out twice."""
    centre = vectors.mean(axis=0, dtype=np.float64)
    for _ in range(2):
        similarity = vectors @ centre
        centre = vectors[similarity >= np.quantile(similarity, EXCLUDED_SHARE)].mean(
            axis=0, dtype=np.float64
        )
    distance: Floats = -(vectors @ centre) / float(np.linalg.norm(centre))
    return distance


def robust_deviations(values: Floats) -> Floats:
    """How many robust deviations (1.4826 times the median absolute one) each value [n] is above
    the median (Iglewicz and Hoaglin 1993); zeros where most values are the same."""
    median = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - median))
    return (values - median) / spread if spread > 1e-6 else np.zeros_like(values)
