"""Linear models on fixed features for what is no class: ridge regression, and one yes or no a
label. The siblings of ``probe``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.models.probes.logistic import fit_sigmoids, sigmoid_losses
from holdfast.models.probes.probe import (
    FOLDS,
    GRID,
    UNTESTED_C,
    WORSE_IN_A_ROW,
    PenaltyChoice,
    Probe,
    scaled,
)

Array = npt.NDArray[np.float64]
HELD_OUT = 0.2
STEPS = 300


def fit_ridge(features: Floats, targets: Floats, *, seed: int) -> Probe:
    """Ridge regression: Σ (w·x + b − y)² + λ ‖w‖², b free, in closed form; one output.

    The features are centred and divided by one number, the root of their mean variance. λ = 1 ÷ C,
    with C from the grid of ``probe`` by five-fold cross-validated squared error, each fold's Gram
    matrix being the whole one less its own part. Under ten rows C is 0.1, and ``because`` says so.
    """
    x, _, scale = scaled(np.asarray(features, dtype=np.float64))
    y = np.asarray(targets, dtype=np.float64)
    c, because, seen, _ = _choose_ridge(x, y, seed)
    inside = x - x.mean(axis=0)
    weight = _solve(inside.T @ inside, inside.T @ (y - y.mean()), [c])[0] / scale
    # In the features' own unit, so that nothing of the scaling has to be kept.
    bias = float(y.mean() - (features.astype(np.float64).mean(axis=0) @ weight))
    return Probe(weight[None], np.array([bias]), c, because, seen)


def _choose_ridge(x: Array, y: Array, seed: int) -> PenaltyChoice:
    if len(y) < 2 * FOLDS:
        return PenaltyChoice(UNTESTED_C, "too few rows to choose it by cross-validation")
    folds = generator(seed, "ridge folds").permutation(len(y)) % FOLDS
    errors = np.zeros(len(GRID))
    for fold in range(FOLDS):
        fitted, held = folds != fold, folds == fold
        mean, level = x[fitted].mean(axis=0), y[fitted].mean()
        inside = x[fitted] - mean
        weights = _solve(inside.T @ inside, inside.T @ (y[fitted] - level), GRID)
        gaps = (x[held] - mean) @ weights.T + level - y[held][:, None]
        errors += (gaps**2).sum(axis=0)
    errors /= len(y)
    best = int(errors.argmin())
    because = f"squared error {errors[best]:.4f} in {FOLDS}-fold cross-validation"
    return PenaltyChoice(GRID[best], because, tuple(zip(GRID, errors.tolist(), strict=True)))


def _solve(gram: Array, moment: Array, cs: tuple[float, ...] | list[float]) -> Array:
    """Ridge weights for each C, [C, D], from one eigendecomposition."""
    values, vectors = np.linalg.eigh(gram)
    turned = vectors.T @ moment
    # One eigendecomposition for all penalties: only the diagonal differs. Rounding may leave an
    # eigenvalue below 0.
    return np.array([vectors @ (turned / (np.maximum(values, 0) + 1 / c)) for c in cs])


def fit_labels(features: Floats, labels: Floats, *, seed: int) -> Probe:
    """One L2-regularised logistic regression a label (one against the rest): the sum over labels of
    the mean of −log p over the rows plus ‖w‖² ÷ (2 C n), the biases free, by L-BFGS.

    ``labels`` [n, labels] are 0 or 1. Features are scaled as for ``fit_probe``. C is one for all
    labels: the first of rising values after which the loss of a fifth of the rows, held out, gets
    worse twice. A label that every row has, or none, gets zero weights and a bias of its smoothed
    frequency.
    """
    x, centre, scale = scaled(np.asarray(features, dtype=np.float64))
    y = np.asarray(labels, dtype=np.float64)
    varies = (y.min(axis=0) < y.max(axis=0)) if len(y) else np.zeros(y.shape[1], dtype=bool)
    weight, bias = np.zeros((y.shape[1], x.shape[1])), frequency_logits(y)
    c, because, seen, _ = _choose_labels(x, y[:, varies], seed)
    if varies.any():
        table = _fit_labels(x, y[:, varies], c)
        raw = table[:, :-1] / scale
        weight[varies], bias[varies] = raw, table[:, -1] - raw @ centre
    return Probe(weight, bias, c, because, seen)


def frequency_logits(labels: Floats) -> Array:
    """log odds of how often each label holds, [labels], with half a row added on either side."""
    held = np.asarray(labels, dtype=np.float64).sum(axis=0)
    return np.asarray(np.log((held + 0.5) / (len(labels) - held + 0.5)))


def _choose_labels(x: Array, y: Array, seed: int) -> PenaltyChoice:
    held: Ints = generator(seed, "label probe").permutation(len(y))[: int(HELD_OUT * len(y))]
    if len(held) < 2 or not y.shape[1]:
        return PenaltyChoice(UNTESTED_C, "too few rows to choose it")
    rest = np.setdiff1d(np.arange(len(y)), held)
    seen: list[tuple[float, float]] = []
    table: Array | None = None
    for c in GRID:
        table = _fit_labels(x[rest], y[rest], c, table)
        seen.append((c, float(sigmoid_losses(table, x[held], y[held]).mean())))
        best = min(range(len(seen)), key=lambda index: seen[index][1])
        if len(seen) - 1 - best >= WORSE_IN_A_ROW:
            break
    because = f"binary cross-entropy {seen[best][1]:.4f} on {len(held)} held-out training rows"
    return PenaltyChoice(seen[best][0], because, tuple(seen))


def _fit_labels(x: Array, y: Array, c: float, first: Array | None = None) -> Array:
    if first is None:
        first = np.column_stack([np.zeros((y.shape[1], x.shape[1])), frequency_logits(y)])
    return fit_sigmoids(x, y, c, first, tolerance=1e-5, steps=STEPS)
