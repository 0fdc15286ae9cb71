"""A linear head in closed form on features that no label has moved yet: logistic regression,
discriminant analysis, or the mean of their logits.

Both give a linear function of the features, and so does their mean. The two err on other rows: on
MiniLM's vectors of CR, MR, TREC and BANKING77 with 70, 280 and 1,120 rows the mean gained 0.5
points over logistic regression and lost nothing beyond chance on any of them, where choosing the
better one out of fold gained less and lost on some (benchmarks/heads.py). To features that contrast
has moved by the labels of these very rows it adds nothing (benchmarks/tuned_heads.py): there every
fold is easy, and a covariance within classes says little.

Linear discriminant analysis with a shrunken covariance is the other way to fit a linear head.
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

``probe_curve`` says how such a head does on rows it was not fitted on, and how that grows with its
rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints
from holdfast.core.run_facts import LabelNoise
from holdfast.core.seeds import generator
from holdfast.models.probes.logistic import logits_of, softmax_losses
from holdfast.models.probes.probe import (
    FOLDS,
    ExtraRows,
    Probe,
    fit_probe,
    scaled_rows,
    stratified_folds,
    with_extra_rows,
)
from holdfast.stats.threads import threads_for

HeadType = Literal["both", "logistic", "discriminant"]
SHRINKAGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
# Of 1 ÷ T, as a logarithm.
SCALES = (-7.0, 2.0)
DEVIATION = 0.5
Array = npt.NDArray[np.float64]


def fit_head(
    features: Floats,
    labels: Ints,
    *,
    classes: int,
    seed: int,
    head_type: HeadType = "both",
    extra_rows: ExtraRows | None = None,
) -> Probe:
    """A head of this ``head_type``, its strengths chosen by stratified five-fold cross-validation
    on these rows; the parameters and errors are those of ``models.probes.probe.fit_probe``.

    Rows that cannot say how to shrink (one class, or no class with two rows) get the logistic
    regression, and ``because`` says what was fitted.
    """
    logistic = None
    if head_type != "discriminant":
        logistic = fit_probe(features, labels, classes=classes, seed=seed, extra_rows=extra_rows)
        if head_type == "logistic":
            return logistic
    discriminant = fit_discriminant(
        features, labels, classes=classes, seed=seed, extra_rows=extra_rows
    )
    if discriminant is None:
        if logistic is None:
            logistic = fit_probe(
                features, labels, classes=classes, seed=seed, extra_rows=extra_rows
            )
        return replace(logistic, because=f"logistic regression only: {logistic.because}")
    shrunk = f"discriminant analysis (shrinkage {discriminant.shrinkage:g}, {discriminant.because})"
    if logistic is None:
        return replace(discriminant, because=shrunk)
    description = (
        f"mean of logistic regression (C {logistic.c:.3g}, {logistic.because}) and {shrunk}"
    )
    return replace(_mean(logistic, discriminant), because=description)


def refit_probe(probe: Probe, features: Floats, labels: Ints, *, classes: int, seed: int) -> Probe:
    """A head of the type of ``probe`` and with its C on other rows. The shrinkage is chosen again,
    which costs almost nothing: fewer rows need more of it."""
    discriminant = None
    if probe.shrinkage is not None:
        discriminant = fit_discriminant(features, labels, classes=classes, seed=seed)
        if discriminant is not None and not probe.c:
            return discriminant
    logistic = fit_probe(features, labels, classes=classes, seed=seed, c=probe.c or None)
    return logistic if discriminant is None else _mean(logistic, discriminant)


def _mean(one: Probe, other: Probe) -> Probe:
    held_out = None
    if one.held_out is not None and other.held_out is not None:
        held_out = (one.held_out + other.held_out) / 2
    return replace(
        one,
        weight=(one.weight + other.weight) / 2,
        bias=(one.bias + other.bias) / 2,
        held_out=held_out,
        shrinkage=other.shrinkage,
    )


@dataclass(frozen=True, slots=True)
class ClassStatistics:
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
        variance_along = (1 - shrinkage) * self.variances + shrinkage * mean
        precision_outside = 1 / (shrinkage * mean)
        projected = self.means @ self.basis
        weight = (
            projected * (1 / variance_along - precision_outside)
        ) @ self.basis.T + precision_outside * self.means
        bias = self.priors - 0.5 * (weight * self.means).sum(axis=1)
        return np.column_stack([weight, bias])


def class_statistics(x: Array, y: Ints, weights: Array | None = None) -> ClassStatistics:
    """Of rows ``x`` [n, D] of the classes ``y`` [n], each with at least one row; a row of weight 2
    (``weights`` [n], above 0) is the row twice."""
    row_weights = np.ones(len(y)) if weights is None else weights
    mass = np.bincount(y, weights=row_weights)
    means = np.zeros((len(mass), x.shape[1]))
    np.add.at(means, y, x * row_weights[:, None])
    means /= mass[:, None]
    deviations = (x - means[y]) * np.sqrt(row_weights / mass.sum())[:, None]
    if len(deviations) < x.shape[1]:
        _, sizes, basis = np.linalg.svd(deviations, full_matrices=False)
        variances, basis_rows = sizes**2, basis.T
    else:
        variances, basis_rows = np.linalg.eigh(deviations.T @ deviations)
    return ClassStatistics(means, np.log(mass / mass.sum()), np.maximum(variances, 0.0), basis_rows)


class ShrinkageChoice(NamedTuple):
    """A shrinkage, how its logits are calibrated (1 ÷ T is ``scale``, ``shift`` [C]), the loss in
    nats then, and the out-of-fold logits [n, C]: NaN for a row of no fold."""

    shrinkage: float
    scale: float
    shift: Array
    loss: float
    held_out: Array


def choose_shrinkage(
    x: Array, y: Ints, seed: int, extra_rows: ExtraRows | None = None
) -> ShrinkageChoice:
    """The shrinkage of ``SHRINKAGES`` and the calibration of the smallest cross-validated log loss,
    in the folds of ``fit_probe``; at least one row must be in one. Rows ``extra_rows`` stand in the
    training part of every fold."""
    folds = stratified_folds(y, FOLDS, seed)
    in_fold = folds >= 0
    fold_masks = [folds == fold for fold in np.unique(folds[in_fold])]
    fits = [
        (held, class_statistics(*with_extra_rows(x[~held], y[~held], extra_rows)))
        for held in fold_masks
    ]
    n_classes = int(max(y.max(), extra_rows.labels.max() if extra_rows else 0)) + 1
    logits = np.full((len(y), n_classes), np.nan)
    best: ShrinkageChoice | None = None
    for shrinkage in SHRINKAGES:
        for held_out, fit in fits:
            logits[held_out] = logits_of(fit.table(shrinkage), x[held_out])
        scale, shift, loss = calibration(logits[in_fold], y[in_fold])
        if best is None or loss < best.loss:
            best = ShrinkageChoice(shrinkage, scale, shift, loss, logits * scale + shift)
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
    solution = minimize(value, first, jac=True, method="L-BFGS-B", bounds=bounds).x
    scale, shift = float(np.exp(solution[0])), np.asarray(solution[1:])
    return scale, shift, float(softmax_losses(logits * scale + shift, y).mean())


def fit_discriminant(
    features: Floats, labels: Ints, *, classes: int, seed: int, extra_rows: ExtraRows | None = None
) -> Probe | None:
    """A linear head by discriminant analysis; ``None`` where the rows cannot say how strongly to
    shrink: one class, or no class with two rows.

    The parameters are those of ``models.probes.probe.fit_probe``, and so is the unit of the
    features; the rows ``extra_rows`` count in means, shares and covariance.

    Raises
    ------
    ModelError : there are no rows, a label is out of range, or a feature is not finite.
    """
    rows = scaled_rows(features, labels, classes, extra_rows)
    (x, y, _), all_rows = rows.rows, rows.all
    if len(rows.present) == 1 or (stratified_folds(y, FOLDS, seed) < 0).all():
        return None
    with threads_for(all_rows.x.size):
        choice = choose_shrinkage(x, y, seed, rows.extra_rows)
        table = class_statistics(*all_rows).table(choice.shrinkage) * choice.scale
        table[:, -1] += choice.shift
    because = f"log loss {choice.loss:.4f} out of fold"
    fitted = Probe(table, table, 0.0, because, (), choice.held_out, choice.shrinkage)
    return rows.probe(table, fitted, classes)


SHARES = (0.25, 0.5)
MIN_ROWS = 20
MAX_TWINS, TWIN_BLOCK, TWIN = 1000, 20_000, 0.01


@dataclass(frozen=True, slots=True)
class ProbeCurve:
    """``losses`` [held-out rows] of the probe on all of its rows, in nats; ``points`` pairs (rows,
    mean held-out loss), fewest rows first, the whole probe last; ``twins`` is how many held-out
    rows have a twin among the probe's own, and of how many; ``labels`` what its answers on rows it
    was not fitted on say against the labels, where somebody asked."""

    losses: Floats
    points: tuple[tuple[int, float], ...]
    twins: tuple[int, int] = (0, 0)
    labels: LabelNoise | None = None


def probe_curve(
    probe: Probe,
    features: Floats,
    labels: Ints,
    held_out: Floats,
    held_out_labels: Ints,
    *,
    classes: int,
    seed: int,
) -> ProbeCurve:
    """The learning curve of a probe that was fitted on ``features`` [n, width] and ``labels`` [n]:
    again on a quarter and on half of them, the smaller inside the larger, each class in its share,
    with the C of the whole; its losses on ``held_out`` [m, width].

    C is the inverse variance of a prior on the weights, which does not hang on how many rows there
    are; choosing it again for each part gave no lower loss on real features, at five times the
    time.

    A part of fewer than 20 rows, or with a class less than the whole has, is left out: it would say
    more about the division than about the rows. No held-out rows: no points.
    """
    losses = cross_entropy(probe.logits(held_out), held_out_labels)
    if not len(losses):
        return ProbeCurve(losses, (), (0, 0))
    order, points = nested_order(labels, seed), []
    for share in SHARES:
        part = order[: int(share * len(order))]
        if len(part) < MIN_ROWS or len(np.unique(labels[part])) < len(np.unique(labels)):
            continue
        smaller = refit_probe(probe, features[part], labels[part], classes=classes, seed=seed)
        loss = float(cross_entropy(smaller.logits(held_out), held_out_labels).mean())
        points.append((len(part), loss))
    full_point = (len(labels), float(losses.mean()))
    return ProbeCurve(losses, (*points, full_point), count_twins(features, held_out))


def count_twins(features: Floats, held_out: Floats) -> tuple[int, int]:
    """How many rows of ``held_out`` [m, width] are duplicates of a row of ``features`` [n, width],
    that is, within a hundredth of their own length of it; and how many were checked: at most 1,000,
    evenly spaced.

    One text through one model gives one vector, up to rounding; texts that differ in a word differ
    by several hundredths. Features that are not finite have no duplicate.
    """
    positions = np.linspace(0, len(held_out) - 1, min(len(held_out), MAX_TWINS)).astype(np.int64)
    rows = np.asarray(held_out, dtype=np.float64)[np.unique(positions)]
    if not len(rows) or not len(features):
        return 0, len(rows)
    train_rows = np.asarray(features, dtype=np.float64)
    norms, sizes = (train_rows**2).sum(axis=1), (rows**2).sum(axis=1)
    gaps = np.full(len(rows), np.inf)
    for start in range(0, len(train_rows), TWIN_BLOCK):
        block = slice(start, start + TWIN_BLOCK)
        # ‖a − b‖² from products: no table of differences is ever held.
        distances = sizes[:, None] + norms[block] - 2 * rows @ train_rows[block].T
        gaps = np.minimum(gaps, np.where(np.isfinite(distances), distances, np.inf).min(axis=1))
    return int((gaps < TWIN**2 * sizes).sum()), len(rows)


def out_of_fold_logits(
    probe: Probe, labels: Ints, held_out: Floats, held_out_labels: Ints
) -> tuple[Floats, Ints]:
    """Logits [rows, classes] of a probe for every labelled row, none from a fit on that row, and
    their labels [rows]: those of its own ``labels`` [n] from the folds that C was chosen by (a row
    of no fold is left out), those of ``held_out`` [m, width] from the whole probe. They cost no
    fit."""
    logits = probe.logits(held_out)
    if probe.held_out is None:
        return logits, np.asarray(held_out_labels)
    in_fold = np.isfinite(probe.held_out).all(axis=1)
    return (
        np.concatenate([probe.held_out[in_fold], logits]),
        np.concatenate([np.asarray(labels)[in_fold], held_out_labels]),
    )


def nested_order(labels: Ints, seed: int) -> Ints:
    """All rows [n] in an order of which every beginning has each class in about its share."""
    random = generator(seed, "probe curve").permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = random[labels[random] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.asarray(random[np.argsort(place[random], kind="stable")])


def cross_entropy(logits: Floats, labels: Ints) -> Floats:
    """−log softmax(logits)[label] of each row [n], in nats."""
    from scipy.special import logsumexp

    if not len(labels):
        return np.zeros(0)
    scores = np.asarray(logits, dtype=np.float64)
    return np.asarray(logsumexp(scores, axis=1) - scores[np.arange(len(scores)), labels])
