"""Similarity of rows to reference texts, in a table that may itself contain such texts.

A probe that separates a table from reference texts learns the subject of the table, and rows that
do not belong to it score like the references: positive and unlabelled learning (Elkan and Noto
2008). Reference-like rows in the table would teach it the opposite. Therefore the rows most similar
to the references are scored but not used for training.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from holdfast.core.records import Floats
from holdfast.duplicates.vectors import Vectors
from holdfast.models.probes.probe import fit_probe, stratified_folds

FOLDS, ROUNDS = 5, 2
PENALTY = 0.3
# Share of the rows that is excluded from training.
EXCLUDED_SHARE = 0.15


def filler_texts() -> list[str]:
    """Filler sentences in the style of language models, written by the authors and in the public
    domain (CC0)."""
    return Path(__file__).with_name("filler.txt").read_text("utf-8").strip().split("\n")


def reference_log_odds(
    vectors: Vectors, references: Vectors, first_score: Floats, seed: int
) -> Floats:
    """The log-odds [n], at equal priors, of each row [n, d] being one of the ``references`` [m, d]
    and not of the table. The probe is fitted without the row and without the 15 % of rows most
    similar to the references: first by ``first_score`` [n], then by the probe's own score."""
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
            # Remove the prior: the number of rows says nothing about the share of such rows.
            prior_log_odds = np.log(len(references) / max(1, len(table_vectors)))
            score[folds == fold] = logits[:, 1] - logits[:, 0] - prior_log_odds
    return score


def centre_distance(vectors: Vectors) -> Floats:
    """Minus the cosine similarity [n] of each row [n, d] (unit length) with the mean of the rows.
    The mean is computed twice without the 15 % most distant rows."""
    centre = vectors.mean(axis=0, dtype=np.float64)
    for _ in range(2):
        similarity = vectors @ centre
        centre = vectors[similarity >= np.quantile(similarity, EXCLUDED_SHARE)].mean(
            axis=0, dtype=np.float64
        )
    distance: Floats = -(vectors @ centre) / float(np.linalg.norm(centre))
    return distance


def robust_deviations(values: Floats) -> Floats:
    """How many robust standard deviations (1.4826 times the median absolute deviation) each value
    [n] is above the median (Iglewicz and Hoaglin 1993); zeros if most values are equal."""
    median = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - median))
    return (values - median) / spread if spread > 1e-6 else np.zeros_like(values)
