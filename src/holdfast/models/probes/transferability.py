"""How well a model's features fit the labels, in closed form, without training.

- **H-score**, shrunken (2110.06893): how much of the features' variance the classes explain, in
  directions made alike,

      H = (1 − α) tr(Σ_α⁻¹ Σ_z),   Σ_α = (1 − α) Σ + α (tr Σ ÷ D) I

  with Σ the covariance of the features, Σ_z that of their class means, and α by Ledoit and Wolf
  (JMA 2004). Between 0 and C − 1.
- **LogME** (2102.11005): the largest log evidence, a row, that a linear model with a normal prior
  gives the labels, over the precisions of weights (α) and noise (β); the mean over the columns of
  the labels. Higher is better; in nats, compared within one set of rows only.

Both read all rows at once, and so are less noisy than a score on rows held out; neither says what a
model will score. What does is a **ridge probe** for any kind of label, least squares with a penalty
(Hoerl and Kennard, Technometrics 1970), out of fold:

    W = argmin ‖Y − X W‖² + λ ‖W‖²,  X and Y centred by the rows that are learned from

Y [n, C] holds 0 and 1 for classes and labels, or numbers. Where ``models/probes/probe.py``
minimises the log loss of classes by L-BFGS, this needs one decomposition a fold for every λ: it
asks each layer of each of many models what it knows in milliseconds. Folds come from the caller, so
that copies and groups stay together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints

Array = npt.NDArray[np.float64]
# Fixed-point rounds of LogME; the paper's own code takes 11.
ROUNDS, TOLERANCE = 100, 1e-6
# Of a variance this small beside the largest nothing is left but rounding.
EPSILON = 1e-12
# λ in shares of the features' mean variance along a direction, times the rows.
SHARES = tuple(float(s) for s in 10.0 ** np.arange(-4, 2.1, 0.5))


def _shrinkage(x: Array, squares: Array) -> float:
    """Ledoit and Wolf's α in [0, 1] for the covariance, over n, of centred ``x`` [n, D] with the
    squared singular values ``squares``."""
    n, width = x.shape
    sizes = squares / n
    mean, total = float(sizes.sum()) / width, float((sizes**2).sum())
    dispersion = total / width - mean**2
    if dispersion <= EPSILON * mean**2:
        return 1.0
    fourth = float(((x**2).sum(axis=1) ** 2).sum()) / n
    noise = (fourth - total) / (n * width)
    return float(min(max(noise / dispersion, 0.0), 1.0))


def h_score(features: Floats, labels: Ints) -> float:
    """The shrunken H-score of ``features`` [n, D] for class indices ``labels`` [n]; 0 where the
    features do not vary."""
    x = _centred(features)
    n, width = x.shape
    left, squares = _directions(x)
    variances = squares / n
    mean = float(variances.sum()) / width
    if mean == 0:
        return 0.0
    alpha = _shrinkage(x, squares)
    # P u, P the averaging over each class: the class means lie in the span of the rows.
    _, of_row, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), left.shape[1]))
    np.add.at(sums, of_row, left)
    explained = (sums**2 / counts[:, None]).sum(axis=0)
    within = (1 - alpha) * variances + alpha * mean
    return float((1 - alpha) * (variances * explained / within).sum())


def log_evidence(features: Floats, targets: Floats) -> float:
    """LogME of ``features`` [n, D] for ``targets`` [n, C]: 0 and 1 for classes and labels, numbers
    in deviations from their mean."""
    x, y = np.asarray(features, np.float64), np.asarray(targets, np.float64)
    left, squares = _directions(x)
    inside = (left.T @ y) ** 2
    beyond = np.maximum((y**2).sum(axis=0) - inside.sum(axis=0), 0.0)
    evidences = [
        _largest(squares, inside[:, column], float(beyond[column]), *x.shape)
        for column in range(y.shape[1])
    ]
    return float(np.mean(evidences))


def _directions(x: Array) -> tuple[Array, Array]:
    """Left singular vectors [n, r] of ``x`` [n, D] and the squares of its singular values [r],
    those of 0 left out: by the smaller of the two products, a fraction of the time of an SVD."""
    wide = x.shape[1] > x.shape[0]
    squares, basis = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    nonzero = squares > EPSILON * max(float(squares[-1]), 0.0)
    squares, basis = squares[nonzero], basis[:, nonzero]
    return (basis if wide else x @ basis / np.sqrt(squares)), squares


def _largest(squares: Array, inside: Array, beyond: float, n: int, width: int) -> float:
    """The evidence of one column, over n: ``inside`` are its squared coordinates along the
    features' directions of ``squares`` singular values, ``beyond`` what lies in none."""
    alpha = beta = 1.0

    def moments() -> tuple[float, float, float]:
        """Effective dimensions, ‖weights‖² and squared errors, at these precisions."""
        known = beta * squares / (alpha + beta * squares)
        weights = float((known**2 * inside / np.maximum(squares, EPSILON)).sum())
        return float(known.sum()), weights, float(((1 - known) ** 2 * inside).sum()) + beyond

    for _ in range(ROUNDS):
        gamma, weights, errors = moments()
        before = alpha, beta
        # Features that do not vary have neither dimensions nor weights: any prior fits.
        alpha = max(gamma, EPSILON) / max(weights, EPSILON)
        beta = max(n - gamma, EPSILON) / max(errors, EPSILON)
        converged = (
            abs(new - old) <= TOLERANCE * old
            for new, old in zip((alpha, beta), before, strict=True)
        )
        if all(converged):
            break
    _, weights, errors = moments()
    evidence = 0.5 * (
        n * math.log(beta)
        + width * math.log(alpha)
        - n * math.log(2 * math.pi)
        - beta * errors
        - alpha * weights
        - float(np.log(alpha + beta * squares).sum())
        - (width - len(squares)) * math.log(alpha)
    )
    return evidence / n


def _centred(features: Floats) -> Array:
    x = np.asarray(features, dtype=np.float64)
    return np.asarray(x - x.mean(axis=0))


@dataclass(frozen=True, slots=True)
class RidgeFold:
    """``predictions`` [n, C], each by a fit that had not been trained on its row; ``share`` is the
    λ of the least squared error (mean over rows and columns) among ``SHARES``."""

    predictions: Array
    share: float


def ridge_out_of_fold(features: Floats, targets: Floats, folds: Ints) -> RidgeFold:
    """Answer every row of ``features`` [n, D] by the rows of the other ``folds`` [n] (numbers, at
    least two different ones), for ``targets`` [n, C]."""
    x, y = np.asarray(features, np.float64), np.asarray(targets, np.float64)
    predictions = np.zeros((len(SHARES), *y.shape))
    for fold in np.unique(folds):
        held_out = folds == fold
        predictions[:, held_out] = _ridge_predictions(x[~held_out], y[~held_out], x[held_out])
    errors = ((predictions - y) ** 2).mean(axis=(1, 2))
    best = int(errors.argmin())
    return RidgeFold(predictions[best], SHARES[best])


def _ridge_predictions(x: Array, y: Array, held_out: Array) -> Array:
    """[λ, held rows, C]."""
    middle, level = x.mean(axis=0), y.mean(axis=0)
    x, y, held_out = x - middle, y - level, held_out - middle
    unit = float((x**2).mean()) * len(x) or 1.0
    wide = x.shape[1] > x.shape[0]
    # The smaller of the two products: W = Xᵀ (X Xᵀ + λ)⁻¹ Y = (Xᵀ X + λ)⁻¹ Xᵀ Y.
    squares, basis = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    projected = (held_out @ x.T if wide else held_out) @ basis
    coefficients = basis.T @ (y if wide else x.T @ y)
    return np.stack(
        [
            projected @ (coefficients / (np.maximum(squares, 0) + s * unit)[:, None]) + level
            for s in SHARES
        ]
    )
