"""Out-of-fold predictions: every row is predicted by models that were not trained on it.

Two linear probes predict labels, one from the vectors of a frozen model and one from the words.
They are wrong on different rows. Therefore a weighted sum of their log-probabilities (a log opinion
pool, Genest and Zidek 1986) finds more wrong labels than either one: measured as average precision
with 10 % of the labels replaced, at 1,600 rows (``benchmarks/labels.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve_triangular
from scipy.sparse import issparse

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.duplicates.vectors import Vectors
from holdfast.duplicates.word_features import word_features
from holdfast.models.probes.logistic import first_softmax, fit_softmax, logits_of
from holdfast.models.probes.probe import (
    FOLDS,
    Probe,
    choose_c,
    fit_probe,
    scale_features,
    stratified_folds,
)

REPEATS = 3
# Rows on which C is chosen. C is the inverse variance of a prior and does not depend on the number
# of rows.
PENALTY_ROWS = 1500
# From this many rows times classes on one repeat is enough: another adds less than a point.
SINGLE_REPEAT_SIZE = 200_000
# Larger values of C were never chosen on unit-length vectors of several depths.
PENALTY_GRID = tuple(float(c) for c in 10.0 ** np.arange(-3.5, 0.1, 0.5))
WORD_PENALTY = 3.0
# Fewest labelled rows: with fewer, a fold has too few rows to learn from.
LEAST_ROWS = 20
MIN_CLASS_ROWS = 2
# With more rows, products of dense rows take longer than those of sparse ones.
MOST_ROTATED_ROWS = 2000
# Log-probabilities are clipped at this value.
MIN_LOG_P = -25.0


@dataclass(frozen=True)
class FoldLogProbabilities:
    """Out-of-fold predictions. ``log_p`` [n, C] are the log-probabilities of all ``C`` classes for
    each row, from fits on other rows. ``labels`` [n] are −1 where there is none; every fit predicts
    such a row. ``runs`` [r, n, C] are the predictions of each repeat, of which ``log_p`` is the
    pool. ``weights`` are those of the vectors, of the words and, if given, of the fine-tuned
    predictions; ``c`` is the inverse penalty of the vectors' probe."""

    log_p: Floats
    labels: Ints
    runs: Floats
    weights: tuple[float, ...]
    c: float

    @property
    def labelled_rows(self) -> Ints:
        """The positions of the labelled rows."""
        return np.flatnonzero(self.labels >= 0)

    @property
    def losses(self) -> Floats:
        """−log p of each row's label [n], nats; NaN without a label."""
        label_losses = -self.log_p[np.arange(len(self.labels)), np.maximum(self.labels, 0)]
        return np.where(self.labels >= 0, label_losses, np.nan)

    @property
    def accuracy(self) -> float:
        """The share of labelled rows whose predicted class is their label."""
        known = self.labelled_rows
        return float((self.log_p[known].argmax(axis=1) == self.labels[known]).mean())


def cross_fit(
    vectors: Floats,
    texts: Sequence[str],
    labels: Ints,
    *,
    classes: int,
    seed: int,
    tuned_log_p: Floats | None = None,
) -> FoldLogProbabilities | None:
    """Predict every row by fits on the others: five folds, repeated three times.

    Both probes are L2-regularised multinomial logistic regressions. C of the vectors' probe is
    chosen once by cross-validated log loss (of 1,500 rows at most); C of the words' probe is 3. The
    weights of their log-probabilities minimise the out-of-fold log loss of the pool: two numbers
    fitted to n rows, or three with ``tuned_log_p``.

    Parameters
    ----------
    vectors, texts, labels : [n, d] finite numbers, n texts, [n] classes; −1 for no label.
    classes : the number of classes; some may have no row.
    tuned_log_p : [n, classes] log-probabilities from a fine-tuned model that had not seen the row.

    Returns ``None`` if fewer than 20 rows have a label, or fewer than two classes have two rows.
    """
    labels_ = np.asarray(labels)
    labelled = np.flatnonzero(labels_ >= 0)
    present = np.bincount(labels_[labelled], minlength=classes) >= MIN_CLASS_ROWS
    if len(labelled) < LEAST_ROWS or present.sum() < 2:
        return None
    x, words = scale_features(np.asarray(vectors, np.float64))[0], word_features(texts)
    c = choose_penalty(x, labels_, labelled, seed)
    vector_log_p, word_log_p = [], []
    for repeat in range(REPEATS if len(labelled) * classes <= SINGLE_REPEAT_SIZE else 1):
        folds = np.full(len(labels_), -1)
        folds[labelled] = stratified_folds(labels_[labelled], FOLDS, seed + repeat)
        vector_log_p.append(_out_of_fold_log_p(x, labels_, folds, classes, c))
        word_log_p.append(_out_of_fold_log_p(words, labels_, folds, classes, WORD_PENALTY))
    sources = np.stack([vector_log_p, word_log_p])
    if tuned_log_p is not None:
        tuned_floored = np.maximum(
            log_softmax(np.asarray(tuned_log_p, dtype=np.float64)), MIN_LOG_P
        )
        sources = np.concatenate([sources, np.stack([[tuned_floored] * len(vector_log_p)])])
    means = sources.mean(axis=1)
    weights = pool_weights(means[:, labelled], labels_[labelled])
    runs = log_softmax(np.tensordot(weights, sources, axes=1))
    pooled_log_p = log_softmax(np.tensordot(weights, means, axes=1))
    return FoldLogProbabilities(pooled_log_p, labels_, runs, tuple(weights.tolist()), c)


def choose_penalty(x: Floats, labels: Ints, labelled: Ints, seed: int) -> float:
    """The inverse penalty of a probe, chosen by the log loss on 1,500 of the ``labelled`` rows."""
    subset = generator(seed, "penalty").permutation(labelled)[:PENALTY_ROWS]
    return choose_c(
        x[subset], np.unique(labels[subset], return_inverse=True)[1], seed, PENALTY_GRID
    ).c


def probe_logits(x: Any, y: Ints, held_out: Any, classes: int, c: float) -> Floats:
    """Logits [held_out, C] of a probe, fitted close enough to its minimum to compare losses."""
    present, class_index = np.unique(y, return_inverse=True)
    if len(y) <= MOST_ROTATED_ROWS and 4 * len(y) <= x.shape[1] and issparse(x):
        x, held_out = rotate_to_rows(x, held_out)
    coefficients = fit_softmax(
        x, class_index, c, first_softmax(x, class_index), tolerance=3e-4, steps=100
    )
    # A class without training rows gets the probability of half a row.
    logits = np.full((held_out.shape[0], classes), -np.log(2 * len(y)))
    logits[:, present] = log_softmax(logits_of(coefficients, held_out))
    return logits


def rotate_to_rows(x: Any, held_out: Any) -> tuple[Floats, Floats]:
    """Sparse rows [n, D] and ``held_out`` [m, D] as [n, n] and [m, n] with the same inner products
    with ``x``: the coordinates of their projections in an orthonormal basis of its rows.

    A penalised linear model, and every iterate of L-BFGS from weights of 0, depends on the rows by
    these products only (the representer theorem), and has n instead of D weights for each class.
    The basis is that of Cholesky's factor L of x·xᵀ: x becomes L, h becomes L⁻¹·x·h.
    """
    products = (x @ x.T).toarray()
    # Equal rows make it singular: each row gets a feature of its own, of length 1e-5 of the mean.
    products[np.diag_indices_from(products)] += 1e-10 * products.trace() / len(products)
    factor = cholesky(products, lower=True, overwrite_a=True, check_finite=False)
    others = solve_triangular(factor, (x @ held_out.T).toarray(), lower=True, check_finite=False)
    return factor, np.ascontiguousarray(others.T)


def _out_of_fold_log_p(x: Any, labels: Ints, folds: Ints, classes: int, c: float) -> Floats:
    """Log-probabilities [n, C]: for a row of a fold by the fit without the fold; for any other row
    (without a label, or the only one of its class) by the pool of all fits without it."""
    log_p = np.zeros((len(labels), classes))
    unassigned = np.flatnonzero(folds < 0)
    single = unassigned[labels[unassigned] >= 0]
    for fold in range(FOLDS):
        # The only row of its class would be predicted by a fit on itself.
        training = np.flatnonzero((folds >= 0) & (folds != fold))
        held_out = np.flatnonzero(folds == fold)
        if not len(held_out) or not len(training):
            continue
        predicted = np.concatenate([held_out, unassigned])
        logits = np.maximum(
            log_softmax(probe_logits(x[training], labels[training], x[predicted], classes, c)),
            MIN_LOG_P,
        )
        log_p[held_out] = logits[: len(held_out)]
        log_p[unassigned] += logits[len(held_out) :] / FOLDS
    log_p[single] = np.maximum(log_p[single], MIN_LOG_P)
    return log_softmax(log_p)


def pool_weights(sources: Floats, labels: Ints) -> Floats:
    """The weights w ≥ 0 [s] that minimise the mean of −log softmax(Σ w_i · sources_i)[label];
    ``sources`` [s, n, C] log-probabilities, ``labels`` [n]. The problem is convex; solved by
    L-BFGS."""
    from scipy.optimize import minimize

    rows = np.arange(len(labels))

    def value(weights: Floats) -> tuple[float, Floats]:
        log_p = log_softmax(np.tensordot(weights, sources, axes=1))
        expected = (np.exp(log_p) * sources).sum(axis=2)
        slope = (expected - sources[:, rows, labels]).mean(axis=1)
        return float(-log_p[rows, labels].mean()), slope

    count = len(sources)
    start = np.full(count, 1 / count)
    solution = minimize(value, start, jac=True, method="L-BFGS-B", bounds=[(0.0, 10.0)] * count)
    return np.asarray(solution.x)


def log_softmax(logits: Floats) -> Floats:
    """Logits minus the logarithm of the sum of their exponentials, over the last axis."""
    top = logits.max(axis=-1, keepdims=True)
    return np.asarray(logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True)))


PENALTY = 0.3
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ContentProbes:
    """One probe per fold, and the ``fold`` of each row [n]: −1 for a row that any probe may
    predict, because its label is unknown or it is the only one of its class."""

    probes: tuple[Probe, ...]
    fold: Ints

    def probabilities(self, rows: Ints, vectors: Vectors) -> Array:
        """The probabilities [m, classes] of vectors [m, d] in place of these rows, each from the
        probe that was fitted without the row."""
        from scipy.special import softmax

        logits = np.empty((len(rows), len(self.probes[0].bias)))
        folds = np.maximum(self.fold[rows], 0)
        for fold, probe in enumerate(self.probes):
            in_fold = folds == fold
            logits[in_fold] = probe.logits(vectors[in_fold])
        probabilities: Array = softmax(logits, axis=1)
        return probabilities

    def direction_p_values(self, vectors: Vectors, labels: Ints, direction: Floats) -> Array:
        """Test whether the labels give weight to a ``direction`` [d] of the vector space: a
        two-sided p-value for each class [classes].

        The weight that ridge regression gives the direction is a sum over rows aᵢ yᵢ, with a = X
        (XᵀX + λI)⁻¹ direction. If the labels were redrawn, each with its predicted probability p̂ᵢ,
        the sum would have a standard deviation of √Σ aᵢ² p̂ᵢ(1 − p̂ᵢ). λ is the penalty of the
        probes at a logistic regression's largest curvature.
        """
        from scipy.special import ndtr

        labelled = np.flatnonzero(labels >= 0)
        x = scale_features(np.asarray(vectors[labelled], np.float64))[0]
        inverse = np.linalg.solve(x.T @ x + 4 / PENALTY * np.eye(x.shape[1]), direction)
        row_weights = x @ inverse
        probabilities = self.probabilities(labelled, vectors[labelled])
        one_hot = labels[labelled][:, None] == np.arange(probabilities.shape[1])
        standard_error = np.sqrt(
            (row_weights[:, None] ** 2 * probabilities * (1 - probabilities)).sum(axis=0)
        )
        weight = np.abs(row_weights @ (one_hot - one_hot.mean(axis=0)))
        p_values: Array = 2 * ndtr(-weight / np.maximum(standard_error, 1e-12))
        return p_values


def fit_content_probes(
    vectors: Vectors, labels: Ints, classes: int, seed: int
) -> ContentProbes | None:
    """Cross-fitted probes of the labels [n] on the vectors [n, d]; ``None`` if fewer than two
    classes have two rows."""
    labelled = np.flatnonzero(labels >= 0)
    folds: Ints = np.full(len(labels), -1, dtype=np.int64)
    folds[labelled] = stratified_folds(labels[labelled], FOLDS, seed)
    counts = np.bincount(labels[labelled], minlength=classes)
    if (counts >= 2).sum() < 2:
        return None
    probes = []
    for fold in range(FOLDS):
        training = labelled[folds[labelled] != fold]
        probes.append(
            fit_probe(vectors[training], labels[training], classes=classes, seed=seed, c=PENALTY)
        )
    return ContentProbes(tuple(probes), folds)
