"""Linear discriminant analysis with a shrunken covariance: the other way to fit a linear head.

Classes are normal with one covariance in common. With the means μ_c, the shares π_c and the pooled
covariance S within the classes (over n), shrunk towards the sphere of the same total variance,

    Σ = (1 − λ) S + λ (tr S ÷ D) I

a row's logits are log π_c + (w_c·x + b_c) with w_c = Σ⁻¹ μ_c and b_c = −½ μ_c·Σ⁻¹ μ_c: closed
form, one decomposition for every λ (Friedman, "Regularized discriminant analysis", JASA 1989;
Ledoit and Wolf, JMA 2004, give a λ by a formula). λ = 1 is the nearest mean. Where
``models/probe.py`` fits only the border between the classes, this uses how the rows lie within
them, which few rows tell better; it believes in its covariance far too much, so what it makes of a
row is divided by a temperature T, and the shares of the classes are not:
log π_c + (w_c·x + b_c) ÷ T.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints
from holdfast.models.logistic import logits_of, one_thread_if_small, softmax_losses
from holdfast.models.probe import FOLDS, Beside, Probe, check_rows, spread, stratified_folds

SHRINKAGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
COLDEST, HOTTEST = 0.1, 1000.0
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
        """What rows add to ``priors``: the weights and, last, the bias of each class [C, D + 1];
        ``shrinkage`` in (0, 1]."""
        width = self.means.shape[1]
        # Rows that are their class's mean say nothing of a spread: any will do.
        mean = float(self.variances.sum()) / width or 1.0
        along = (1 - shrinkage) * self.variances + shrinkage * mean
        outside = 1 / (shrinkage * mean)
        seen = self.means @ self.basis
        weight = (seen * (1 / along - outside)) @ self.basis.T + outside * self.means
        return np.column_stack([weight, -0.5 * (weight * self.means).sum(axis=1)])


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
    """A shrinkage, the temperature beside it, the loss in nats at both, and the out-of-fold logits
    [n, C] at both: NaN for a row of no fold."""

    shrinkage: float
    temperature: float
    loss: float
    held_out: Array


def choose_shrinkage(x: Array, y: Ints, seed: int, beside: Beside | None = None) -> ShrinkageChoice:
    """The shrinkage of ``SHRINKAGES`` and the temperature of the smallest cross-validated log loss,
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
    priors, said = np.full((len(y), most), np.nan), np.full((len(y), most), np.nan)
    for held, fit in fits:
        priors[held] = fit.priors
    best: ShrinkageChoice | None = None
    for shrinkage in SHRINKAGES:
        for held, fit in fits:
            said[held] = logits_of(fit.table(shrinkage), x[held])
        temperature, loss = _tempered(priors[known], said[known], y[known])
        if best is None or loss < best.loss:
            best = ShrinkageChoice(shrinkage, temperature, loss, priors + said / temperature)
    assert best is not None
    return best


def _tempered(priors: Array, said: Array, y: Ints) -> tuple[float, float]:
    """The temperature T of the smallest mean loss of ``priors + said ÷ T`` [n, C] with one row more
    that says nothing of its class, lest rows that are all told ask for T → 0; and the loss without
    it. The loss is convex in 1 ÷ T."""
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(y))

    def value(log_temperature: float) -> float:
        logits = priors + said * np.exp(-log_temperature)
        losses = softmax_losses(logits, y)
        # What the loss would be were the label any of the classes.
        alike = losses + logits[rows, y] - logits.mean(axis=1)
        return float(losses.sum() + alike.mean())

    low, high = np.log(COLDEST), np.log(HOTTEST)
    found = minimize_scalar(value, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    temperature = float(np.exp(found.x))
    return temperature, float(softmax_losses(priors + said / temperature, y).mean())


def fit_discriminant(
    features: Floats, labels: Ints, *, classes: int, seed: int, beside: Beside | None = None
) -> Probe | None:
    """A linear head by discriminant analysis; ``None`` where the rows cannot say how strongly to
    shrink: one class, or no class with two rows.

    The parameters are those of ``models.probe.fit_probe``, and so is the unit of the features; the
    rows ``beside`` count in means, shares and covariance.

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
    own = None if weights is None else Beside(x[n:], y[n:], weights[n:])
    with one_thread_if_small(x.size):
        chosen = choose_shrinkage(x[:n], y[:n], seed, own)
        found = within(x, y, weights)
        table = found.table(chosen.shrinkage) / chosen.temperature
        table[:, -1] += found.priors
    raw = table[:, :-1] / scale
    because = f"log loss {chosen.loss:.4f} out of fold"
    made = Probe(raw, table[:, -1] - raw @ centre, 0.0, because, held_out=chosen.held_out)
    return spread(replace(made, shrinkage=chosen.shrinkage), present, classes, y)
