"""The linear probe: a regularised linear model on fixed features. For classes it is logistic
regression (``fit_probe``), for numbers ridge regression (``fit_ridge``), for several labels one
binary logistic regression per label (``fit_labels``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import ModelError
from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.models.probes.logistic import (
    first_softmax,
    fit_sigmoids,
    fit_softmax,
    logits_of,
    sigmoid_losses,
    softmax_losses,
)

FOLDS = 5
C_GRID = tuple(float(c) for c in 10.0 ** np.arange(-4, 1.5, 0.5))
DEFAULT_C = 0.1
# The path is left once this many values of C in a row were worse than the best.
PATIENCE = 2
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Probe:
    """A linear classifier on raw features: ``features @ weight.T + bias`` are its logits.

    ``weight`` [C, D] and ``bias`` [C], float64; ``c`` is the inverse strength of the penalty that
    was used (0: it is no logistic regression), ``losses`` the cross-validated log loss in nats of
    each C that was tried. ``held_out`` [n, C] are the logits that each of its own rows got from the
    fold it was not in, at ``c``: NaN for a row of no fold, ``None`` where nothing was
    cross-validated. ``shrinkage`` is that of a discriminant analysis
    (``models/probes/head_fit.py``), ``None`` where none is part of it.
    """

    weight: Array
    bias: Array
    c: float
    because: str
    losses: tuple[tuple[float, float], ...] = ()
    held_out: Array | None = None
    shrinkage: float | None = None

    def logits(self, features: Floats) -> Array:
        """Logits [n, C] of features [n, D]."""
        return np.asarray(features @ self.weight.T + self.bias, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class ExtraRows:
    """Additional rows that a probe is fitted on but never scored on: ``features`` [m, D],
    ``labels`` [m] class indices, ``weights`` [m] at least 0, where an ordinary row counts 1. They
    are in the training part of every fold, and never held out."""

    features: Floats
    labels: Ints
    weights: Floats


class WeightedRows(NamedTuple):
    """Rows ``x`` [n, D] of the classes ``y`` [n], and how often each counts; ``None``: once."""

    x: Array
    y: Ints
    weights: Array | None


def with_extra_rows(x: Array, y: Ints, extra_rows: ExtraRows | None) -> WeightedRows:
    """The rows ``x`` of the classes ``y``, and those ``extra_rows`` after them."""
    if extra_rows is None:
        return WeightedRows(x, y, None)
    weights = np.concatenate([np.ones(len(x)), extra_rows.weights])
    labels = np.concatenate([y, extra_rows.labels])
    return WeightedRows(np.concatenate([x, extra_rows.features]), labels, weights)


@dataclass(frozen=True, slots=True)
class ScaledRows:
    """The rows that a head is fitted on, ``centre``d and divided by one ``scale``, of classes
    numbered as they are ``present``: ``rows`` ones, those ``extra_rows`` them if any, and
    ``all``."""

    rows: WeightedRows
    extra_rows: ExtraRows | None
    all: WeightedRows
    present: Ints
    centre: Array
    scale: float

    def probe(self, table: Array, probe: Probe, classes: int) -> Probe:
        """``probe`` with the weights of ``table`` [present, D + 1], a head on scaled features, as
        a head of all ``classes`` on raw ones."""
        weight = table[:, :-1] / self.scale
        bias = table[:, -1] - weight @ self.centre
        return expand_classes(
            replace(probe, weight=weight, bias=bias), self.present, classes, self.all.y
        )


def scaled_rows(
    features: Floats, labels: Ints, classes: int, extra_rows: ExtraRows | None
) -> ScaledRows:
    """Rows, and those of ``extra_rows`` that count, in the unit of the rows alone.

    Raises ``ModelError`` for rows that no head can be fitted to.
    """
    rows, label_array = np.asarray(features, dtype=np.float64), np.asarray(labels)
    check_rows(rows, label_array, classes)
    n, extra = len(rows), None
    x, centre, scale = scale_features(rows)
    if extra_rows is not None and extra_rows.weights.any():
        is_used = extra_rows.weights > 0
        others = np.asarray(extra_rows.features, dtype=np.float64)[is_used]
        other_labels = np.asarray(extra_rows.labels)[is_used]
        check_rows(others, other_labels, classes)
        weights = np.asarray(extra_rows.weights, dtype=np.float64)[is_used]
        extra = ExtraRows((others - centre) / scale, other_labels, weights)
    all_rows = with_extra_rows(x, label_array, extra)
    present, y = np.unique(all_rows.y, return_inverse=True)
    if extra is not None:
        extra = replace(extra, labels=y[n:])
    base_rows = WeightedRows(x, y[:n], None)
    return ScaledRows(base_rows, extra, all_rows._replace(y=y), present, centre, scale)


def scale_features(x: Array) -> tuple[Array, Array, float]:
    """Rows centred and divided by one number, the root of their mean variance; the centre [D] and
    that number."""
    centre, scale = x.mean(axis=0), float(np.sqrt(x.var(axis=0).mean())) or 1.0
    return (x - centre) / scale, centre, scale


def fit_probe(
    features: Floats,
    labels: Ints,
    *,
    classes: int,
    seed: int,
    c: float | None = None,
    extra_rows: ExtraRows | None = None,
) -> Probe:
    """Fit L2-regularised multinomial logistic regression: the mean of −log p(label) over the rows
    plus ‖w‖² ÷ (2 C n), the biases free, by L-BFGS. With two classes w is the difference of their
    weights. It is what scikit-learn's ``LogisticRegression`` minimises, without its import (a
    second or two) and its checks at every C (most of the time of a fit this small).

    The features are centred and divided by one number, the root of their mean variance, so that
    C means the same whatever their scale; a scale for each feature was measured and gave no
    better log loss on average over CR, MR and TREC. C is chosen from half-decades between 1e-4
    and 10 by stratified five-fold cross-validation on these rows, by log loss, going up a
    warm-started path until it worsens twice.

    Parameters
    ----------
    features, labels : [n, D] finite numbers, [n] class indices below ``classes``.
    classes : the number of classes, of which some may have no row.
    seed : of the folds.
    c : the inverse penalty, to skip the choice.
    beside : weighted rows that are learned from too; C, the folds, the centre and the scale are
        those of the rows alone, and so is ``held_out``.

    A class with a single row stays in the training part of every fold. A class without rows gets
    zero weights and a bias below all others by log(2 n). With one class present the weights are
    zero. With too few rows for any fold C is 0.1, and ``because`` says so.

    Raises
    ------
    ModelError : there are no rows, a label is out of range, or a feature is not finite.
    """
    rows = scaled_rows(features, labels, classes, extra_rows)
    (x, y, _), all_rows = rows.rows, rows.all
    if len(rows.present) == 1:
        empty = Probe(np.zeros((1, x.shape[1])), np.zeros(1), c or DEFAULT_C, "one class")
        return expand_classes(empty, rows.present, classes, y)
    choice = (
        PenaltyChoice(c, "set in the recipe")
        if c
        else choose_c(x, y, seed, extra_rows=rows.extra_rows)
    )
    table = fit_softmax(
        all_rows.x,
        all_rows.y,
        choice.c,
        first_softmax(all_rows.x, all_rows.y),
        tolerance=1e-5,
        steps=1000,
        weights=all_rows.weights,
    )
    fitted = Probe(table, table, choice.c, choice.because, choice.losses, choice.held_out)
    return rows.probe(table, fitted, classes)


class PenaltyChoice(NamedTuple):
    """A C, its reason, the losses of all tried values, and the out-of-fold logits [n, C] at it."""

    c: float
    because: str
    losses: tuple[tuple[float, float], ...] = ()
    held_out: Array | None = None


def choose_c(
    x: Array,
    y: Ints,
    seed: int,
    grid: Sequence[float] = C_GRID,
    extra_rows: ExtraRows | None = None,
) -> PenaltyChoice:
    """The C with the smallest cross-validated log loss; ``extra_rows``, in the same units, are in
    the training part of every fold."""
    folds = stratified_folds(y, FOLDS, seed)
    fold_masks = [folds == fold for fold in range(FOLDS) if (folds == fold).any()]
    if not fold_masks:
        return PenaltyChoice(DEFAULT_C, "too few rows to choose it by cross-validation")
    parts = [with_extra_rows(x[~held], y[~held], extra_rows) for held in fold_masks]
    n_classes = 1 + max(int(y.max()), int(extra_rows.labels.max()) if extra_rows is not None else 0)
    tables = [first_softmax(part.x, part.y) for part in parts]
    losses: list[tuple[float, float]] = []
    best_logits = np.full((len(y), n_classes), np.nan)
    for c in grid:
        fold_logits, total = np.full_like(best_logits, np.nan), 0.0
        for index, (held_out, (rows, labels, weights)) in enumerate(
            zip(fold_masks, parts, strict=True)
        ):
            # From the fit at the last penalty, and loosely: the fit at the chosen one is tight.
            tables[index] = fit_softmax(
                rows, labels, c, tables[index], tolerance=1e-3, steps=300, weights=weights
            )
            fold_logits[held_out] = logits = logits_of(tables[index], x[held_out])
            total += softmax_losses(logits, y[held_out]).sum()
        losses.append((c, total / int((folds >= 0).sum())))
        best = min(range(len(losses)), key=lambda index: losses[index][1])
        if best == len(losses) - 1:
            best_logits = fold_logits
        if len(losses) - 1 - best >= PATIENCE:
            break
    because = f"log loss {losses[best][1]:.4f} in {len(parts)}-fold cross-validation"
    return PenaltyChoice(losses[best][0], because, tuple(losses), best_logits)


def stratified_folds(y: Ints, folds: int, seed: int) -> npt.NDArray[np.int64]:
    """A fold for every row [n]: the rows of each class are dealt out in turn, the next class
    going on where the last one ended. −1 marks the row of a class with one row only."""
    fold_of_row = np.full(len(y), -1, dtype=np.int64)
    random, offset = generator(seed, "probe folds"), 0
    for label in np.unique(y):
        rows = random.permutation(np.flatnonzero(y == label))
        if len(rows) > 1:
            fold_of_row[rows] = (offset + np.arange(len(rows))) % folds
            offset += len(rows)
    return fold_of_row


def folds_of_all(
    y: Ints, folds: int, seed: int, units: Ints | None = None
) -> npt.NDArray[np.int64]:
    """``stratified_folds``, where the only row of a class gets a fold as well. Rows of one of the
    ``units`` [n] are in one fold, by the class of the first; if all are of one, they are spread."""
    if units is not None and units.min() < units.max():
        _, first, unit = np.unique(units, return_index=True, return_inverse=True)
        return folds_of_all(y[first], folds, seed)[unit]
    fold_of_row = stratified_folds(y, folds, seed)
    return np.where(fold_of_row < 0, np.arange(len(y)) % folds, fold_of_row)


def expand_classes(probe: Probe, present: Ints, classes: int, y: Ints) -> Probe:
    """From the classes ``present`` [fewer] to all, for rows of these labels ``y`` [n]."""
    weight = np.zeros((classes, probe.weight.shape[1]))
    # Below all others, as if half a row of n had been seen.
    bias = np.full(classes, probe.bias.min() - np.log(2 * len(y)))
    weight[present], bias[present] = probe.weight, probe.bias
    held_out = probe.held_out
    if held_out is not None and len(present) < classes:
        lowest = held_out.min(axis=1, keepdims=True) - np.log(2 * len(y))
        held_out = np.repeat(lowest, classes, axis=1)
        held_out[:, present] = probe.held_out
    return replace(probe, weight=weight, bias=bias, held_out=held_out)


def check_rows(x: Array, y: Ints, classes: int) -> None:
    """Raise ``ModelError`` for rows on which no head can be fitted."""
    if x.ndim != 2 or len(x) == 0 or len(x) != len(y):
        raise ModelError(
            "linear probe", "needs one row of features for each label", (x.shape, y.shape)
        )
    if not np.isfinite(x).all():
        raise ModelError("linear probe", "received features that are not finite numbers")
    if y.min() < 0 or y.max() >= classes:
        raise ModelError(
            "linear probe", f"received a label outside 0 to {classes - 1}", int(y.max())
        )


HELD_OUT_SHARE = 0.2
STEPS = 300


def fit_ridge(features: Floats, targets: Floats, *, seed: int) -> Probe:
    """Ridge regression: Σ (w·x + b − y)² + λ ‖w‖², b free, in closed form; one output.

    The features are centred and divided by one number, the root of their mean variance. λ = 1 ÷ C,
    with C from the grid of ``probe`` by five-fold cross-validated squared error, each fold's Gram
    matrix being the whole one less its own part. Under ten rows C is 0.1, and ``because`` says so.
    """
    x, _, scale = scale_features(np.asarray(features, dtype=np.float64))
    y = np.asarray(targets, dtype=np.float64)
    c, because, losses, _ = _choose_ridge(x, y, seed)
    centred = x - x.mean(axis=0)
    weight = _solve(centred.T @ centred, centred.T @ (y - y.mean()), [c])[0] / scale
    # In the features' own unit, so that nothing of the scaling has to be kept.
    bias = float(y.mean() - (features.astype(np.float64).mean(axis=0) @ weight))
    return Probe(weight[None], np.array([bias]), c, because, losses)


def _choose_ridge(x: Array, y: Array, seed: int) -> PenaltyChoice:
    if len(y) < 2 * FOLDS:
        return PenaltyChoice(DEFAULT_C, "too few rows to choose it by cross-validation")
    folds = generator(seed, "ridge folds").permutation(len(y)) % FOLDS
    errors = np.zeros(len(C_GRID))
    for fold in range(FOLDS):
        fitted, held_out = folds != fold, folds == fold
        mean, level = x[fitted].mean(axis=0), y[fitted].mean()
        centred = x[fitted] - mean
        weights = _solve(centred.T @ centred, centred.T @ (y[fitted] - level), C_GRID)
        gaps = (x[held_out] - mean) @ weights.T + level - y[held_out][:, None]
        errors += (gaps**2).sum(axis=0)
    errors /= len(y)
    best = int(errors.argmin())
    because = f"squared error {errors[best]:.4f} in {FOLDS}-fold cross-validation"
    return PenaltyChoice(C_GRID[best], because, tuple(zip(C_GRID, errors.tolist(), strict=True)))


def _solve(gram: Array, moment: Array, cs: tuple[float, ...] | list[float]) -> Array:
    """Ridge weights for each C, [C, D], from one eigendecomposition."""
    values, vectors = np.linalg.eigh(gram)
    rotated = vectors.T @ moment
    # One eigendecomposition for all penalties: only the diagonal differs. Rounding may leave an
    # eigenvalue below 0.
    return np.array([vectors @ (rotated / (np.maximum(values, 0) + 1 / c)) for c in cs])


def fit_labels(features: Floats, labels: Floats, *, seed: int) -> Probe:
    """One L2-regularised logistic regression a label (one against the rest): the sum over labels of
    the mean of −log p over the rows plus ‖w‖² ÷ (2 C n), the biases free, by L-BFGS.

    ``labels`` [n, labels] are 0 or 1. Features are scaled as for ``fit_probe``. C is one for all
    labels: the first of rising values after which the loss of a fifth of the rows, held out, gets
    worse twice. A label that every row has, or none, gets zero weights and a bias of its smoothed
    frequency.
    """
    x, centre, scale = scale_features(np.asarray(features, dtype=np.float64))
    y = np.asarray(labels, dtype=np.float64)
    varies = (y.min(axis=0) < y.max(axis=0)) if len(y) else np.zeros(y.shape[1], dtype=bool)
    weight, bias = np.zeros((y.shape[1], x.shape[1])), frequency_logits(y)
    c, because, losses, _ = _choose_labels(x, y[:, varies], seed)
    if varies.any():
        table = _fit_labels(x, y[:, varies], c)
        raw = table[:, :-1] / scale
        weight[varies], bias[varies] = raw, table[:, -1] - raw @ centre
    return Probe(weight, bias, c, because, losses)


def frequency_logits(labels: Floats) -> Array:
    """log odds of how often each label holds, [labels], with half a row added on either side."""
    counts = np.asarray(labels, dtype=np.float64).sum(axis=0)
    return np.asarray(np.log((counts + 0.5) / (len(labels) - counts + 0.5)))


def _choose_labels(x: Array, y: Array, seed: int) -> PenaltyChoice:
    held_out: Ints = generator(seed, "label probe").permutation(len(y))[
        : int(HELD_OUT_SHARE * len(y))
    ]
    if len(held_out) < 2 or not y.shape[1]:
        return PenaltyChoice(DEFAULT_C, "too few rows to choose it")
    rest = np.setdiff1d(np.arange(len(y)), held_out)
    losses: list[tuple[float, float]] = []
    table: Array | None = None
    for c in C_GRID:
        table = _fit_labels(x[rest], y[rest], c, table)
        losses.append((c, float(sigmoid_losses(table, x[held_out], y[held_out]).mean())))
        best = min(range(len(losses)), key=lambda index: losses[index][1])
        if len(losses) - 1 - best >= PATIENCE:
            break
    because = (
        f"binary cross-entropy {losses[best][1]:.4f} on {len(held_out)} held-out training rows"
    )
    return PenaltyChoice(losses[best][0], because, tuple(losses))


def _fit_labels(x: Array, y: Array, c: float, first: Array | None = None) -> Array:
    if first is None:
        first = np.column_stack([np.zeros((y.shape[1], x.shape[1])), frequency_logits(y)])
    return fit_sigmoids(x, y, c, first, tolerance=1e-5, steps=STEPS)
