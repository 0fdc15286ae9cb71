"""Linear discriminant analysis with a shrunken covariance: the other way to fit a linear head.

Classes are normal with one covariance in common. With the means μ_c, the shares π_c and the pooled
covariance S within the classes (over n), shrunk towards the sphere of the same total variance,

    Σ = (1 − λ) S + λ (tr S ÷ D) I

a row's logits are z_c = w_c·x + b_c with w_c = Σ⁻¹ μ_c and b_c = log π_c − ½ μ_c·Σ⁻¹ μ_c: closed
form, one decomposition for every λ (Friedman, "Regularized discriminant analysis", JASA 1989;
Ledoit and Wolf, JMA 2004, give a λ by a formula). λ = 1 is the nearest mean. Where
``models/probes/probe.py`` fits only the border between the classes, this uses how the rows lie
within them, which few rows tell better. It believes in its covariance far too much, and so its
logits are calibrated out of fold: z_c ÷ T + a_c, a temperature and a shift of each class, a_c drawn
to 0 as by a normal prior of deviation ½. Without the shifts a temperature would flatten the
classes' shares too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints
from holdfast.models.probes.logistic import logits_of, softmax_losses
from holdfast.models.probes.probe import (
    FOLDS,
    ExtraRows,
    Probe,
    check_rows,
    spread,
    stratified_folds,
)
from holdfast.stats.threads import threads_for

SHRINKAGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
# Of 1 ÷ T, as a logarithm.
SCALES = (-7.0, 2.0)
DEVIATION = 0.5
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Within:
    """What rows say of their classes: ``means`` [C, D], the shares' logarithms ``priors`` [C], and
    the covariance within classes as ``variances`` [r] along the columns of ``basis`` [D, r]: 0
    across them."""

    means: Array
    priors: Array
    variances: Array
    basis: Array

    def table(self, shrinkage: float) -> Array:
        """The weights and, last, the bias of each class [C, D + 1]; ``shrinkage`` in (0, 1]."""
        width = self.means.shape[1]
        # Rows that are their class's mean say nothing of a spread: any will do.
        mean = float(self.variances.sum()) / width or 1.0
        along = (1 - shrinkage) * self.variances + shrinkage * mean
        outside = 1 / (shrinkage * mean)
        seen = self.means @ self.basis
        weight = (seen * (1 / along - outside)) @ self.basis.T + outside * self.means
        bias = self.priors - 0.5 * (weight * self.means).sum(axis=1)
        return np.column_stack([weight, bias])


def within(x: Array, y: Ints, weights: Array | None = None) -> Within:
    """Of rows ``x`` [n, D] of the classes ``y`` [n], each with at least one row; a row of weight 2
    (``weights`` [n], above 0) is the row twice."""
    counted = np.ones(len(y)) if weights is None else weights
    mass = np.bincount(y, weights=counted)
    means = np.zeros((len(mass), x.shape[1]))
    np.add.at(means, y, x * counted[:, None])
    means /= mass[:, None]
    apart = (x - means[y]) * np.sqrt(counted / mass.sum())[:, None]
    if len(apart) < x.shape[1]:
        _, sizes, basis = np.linalg.svd(apart, full_matrices=False)
        variances, across = sizes**2, basis.T
    else:
        variances, across = np.linalg.eigh(apart.T @ apart)
    return Within(means, np.log(mass / mass.sum()), np.maximum(variances, 0.0), across)


class ShrinkageChoice(NamedTuple):
    """A shrinkage, how its logits are calibrated (1 ÷ T is ``scale``, ``shift`` [C]), the loss in
    nats then, and the out-of-fold logits [n, C]: NaN for a row of no fold."""

    shrinkage: float
    scale: float
    shift: Array
    loss: float
    held_out: Array


def choose_shrinkage(
    x: Array, y: Ints, seed: int, beside: ExtraRows | None = None
) -> ShrinkageChoice:
    """The shrinkage of ``SHRINKAGES`` and the calibration of the smallest cross-validated log loss,
    in the folds of ``fit_probe``; at least one row must be in one. Rows ``beside`` stand in the
    training part of every fold."""
    folds = stratified_folds(y, FOLDS, seed)
    known, fits = folds >= 0, []
    most = int(max(y.max(), beside.labels.max() if beside else 0)) + 1
    for fold in np.unique(folds[known]):
        rows, labels = x[folds != fold], y[folds != fold]
        weights = None
        if beside is not None:
            weights = np.concatenate([np.ones(len(rows)), beside.weights])
            rows = np.concatenate([rows, beside.features])
            labels = np.concatenate([labels, beside.labels])
        fits.append((folds == fold, within(rows, labels, weights)))
    said = np.full((len(y), most), np.nan)
    best: ShrinkageChoice | None = None
    for shrinkage in SHRINKAGES:
        for held, fit in fits:
            said[held] = logits_of(fit.table(shrinkage), x[held])
        scale, shift, loss = calibration(said[known], y[known])
        if best is None or loss < best.loss:
            best = ShrinkageChoice(shrinkage, scale, shift, loss, said * scale + shift)
    assert best is not None
    return best


def calibration(logits: Array, y: Ints) -> tuple[float, Array, float]:
    """The scale s and the shifts a [C] of ``logits`` [n, C] that minimise

        Σ_i −log softmax(s z_i + a)[y_i] + ℓ + ‖a‖² ÷ (2 · deviation²)

    where ℓ is the mean loss of the rows were their labels any class: one pseudo-row, lest rows that
    are all told ask for s → ∞. A class that no row has keeps the shift 0. And the mean loss of the
    rows."""
    from scipy.optimize import minimize

    n, classes = logits.shape
    rows, counts = np.arange(n), np.bincount(y, minlength=classes)
    of_label, middle = logits[rows, y], logits.mean(axis=1)

    def value(flat: Array) -> tuple[float, Array]:
        scale, shift = np.exp(flat[0]), flat[1:]
        moved = logits * scale + shift
        losses = softmax_losses(moved, y)
        sums = losses + moved[rows, y]
        chances = np.exp(moved - sums[:, None])
        expected = (chances * logits).sum(axis=1)
        loss = losses.sum() + (sums - moved.mean(axis=1)).mean()
        slope = (expected - of_label).sum() + (expected - middle).mean()
        shifts = chances.sum(axis=0) - counts + chances.mean(axis=0) - 1 / classes
        loss += (shift**2).sum() / (2 * DEVIATION**2)
        shifts = np.where(counts > 0, shifts + shift / DEVIATION**2, 0.0)
        return float(loss), np.concatenate([[scale * slope], shifts])

    bounds = [SCALES, *[(None, None)] * classes]
    first = np.concatenate([[-2.0], np.zeros(classes)])
    found = minimize(value, first, jac=True, method="L-BFGS-B", bounds=bounds).x
    scale, shift = float(np.exp(found[0])), np.asarray(found[1:])
    return scale, shift, float(softmax_losses(logits * scale + shift, y).mean())


def fit_discriminant(
    features: Floats, labels: Ints, *, classes: int, seed: int, beside: ExtraRows | None = None
) -> Probe | None:
    """A linear head by discriminant analysis; ``None`` where the rows cannot say how strongly to
    shrink: one class, or no class with two rows.

    The parameters are those of ``models.probes.probe.fit_probe``, and so is the unit of the
    features; the rows ``beside`` count in means, shares and covariance.

    Raises
    ------
    ModelError : there are no rows, a label is out of range, or a feature is not finite.
    """
    rows, marks = np.asarray(features, dtype=np.float64), np.asarray(labels)
    check_rows(rows, marks, classes)
    centre, scale = rows.mean(axis=0), float(np.sqrt(rows.var(axis=0).mean())) or 1.0
    x, weights, n = (rows - centre) / scale, None, len(rows)
    if beside is not None and beside.weights.any():
        counted = beside.weights > 0
        others = np.asarray(beside.features, dtype=np.float64)[counted]
        check_rows(others, np.asarray(beside.labels)[counted], classes)
        x = np.concatenate([x, (others - centre) / scale])
        marks = np.concatenate([marks, np.asarray(beside.labels)[counted]])
        weights = np.concatenate([np.ones(n), beside.weights[counted]])
    present, y = np.unique(marks, return_inverse=True)
    if len(present) == 1 or (stratified_folds(y[:n], FOLDS, seed) < 0).all():
        return None
    own = None if weights is None else ExtraRows(x[n:], y[n:], weights[n:])
    with threads_for(x.size):
        chosen = choose_shrinkage(x[:n], y[:n], seed, own)
        table = within(x, y, weights).table(chosen.shrinkage) * chosen.scale
        table[:, -1] += chosen.shift
    raw = table[:, :-1] / scale
    because = f"log loss {chosen.loss:.4f} out of fold"
    made = Probe(raw, table[:, -1] - raw @ centre, 0.0, because, held_out=chosen.held_out)
    return spread(replace(made, shrinkage=chosen.shrinkage), present, classes, y)
