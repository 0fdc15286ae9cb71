"""The linear probe: a regularised logistic regression on fixed features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import ModelError
from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.models.probes.logistic import first_softmax, fit_softmax, logits_of, softmax_losses

FOLDS = 5
GRID = tuple(float(c) for c in 10.0 ** np.arange(-4, 1.5, 0.5))
UNTESTED_C = 0.1
# The path is left once this many values of C in a row were worse than the best.
WORSE_IN_A_ROW = 2
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Probe:
    """A linear classifier on raw features: ``features @ weight.T + bias`` are its logits.

    ``weight`` [C, D] and ``bias`` [C], float64; ``c`` is the inverse strength of the penalty that
    was used (0: it is no logistic regression), ``losses`` the cross-validated log loss in nats of
    each C that was tried. ``held_out`` [n, C] are the logits that each of its own rows got from the
    fold it was not in, at ``c``: NaN for a row of no fold, ``None`` where nothing was
    cross-validated. ``shrinkage`` is that of a discriminant analysis
    (``models/probes/discriminant.py``), ``None`` where none is part of it.
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
    """Rows that a probe learns from and is never judged by: ``features`` [m, D], ``labels`` [m]
    class indices, ``weights`` [m] at least 0, a row of the others counting 1. They stand in the
    training part of every fold, and in none that is held out."""

    features: Floats
    labels: Ints
    weights: Floats


def fit_probe(
    features: Floats,
    labels: Ints,
    *,
    classes: int,
    seed: int,
    c: float | None = None,
    beside: ExtraRows | None = None,
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
    rows = np.asarray(features, dtype=np.float64)
    marks = np.asarray(labels)
    check_rows(rows, marks, classes)
    if beside is not None and beside.weights.any():
        return _fit_beside(rows, marks, beside, classes=classes, seed=seed, c=c)
    present, y = np.unique(marks, return_inverse=True)
    centre, scale = rows.mean(axis=0), float(np.sqrt(rows.var(axis=0).mean())) or 1.0
    x = (rows - centre) / scale
    if len(present) == 1:
        empty = np.zeros((1, x.shape[1]))
        return spread(Probe(empty, np.zeros(1), c or UNTESTED_C, "one class"), present, classes, y)
    chosen = PenaltyChoice(c, "set by you") if c else choose_c(x, y, seed)
    table = fit_softmax(x, y, chosen.c, first_softmax(x, y), tolerance=1e-5, steps=1000)
    weight, bias = table[:, :-1], table[:, -1]
    raw = weight / scale
    fitted = Probe(
        raw, bias - raw @ centre, chosen.c, chosen.because, chosen.losses, chosen.held_out
    )
    return spread(fitted, present, classes, y)


def _fit_beside(
    rows: Array, marks: Ints, beside: ExtraRows, *, classes: int, seed: int, c: float | None
) -> Probe:
    """The same with rows beside them."""
    counted = beside.weights > 0
    others = np.asarray(beside.features, dtype=np.float64)[counted]
    theirs = np.asarray(beside.labels)[counted]
    check_rows(others, theirs, classes)
    present, y = np.unique(np.concatenate([marks, theirs]), return_inverse=True)
    if len(present) == 1:
        return fit_probe(rows, marks, classes=classes, seed=seed, c=c)
    centre, scale = rows.mean(axis=0), float(np.sqrt(rows.var(axis=0).mean())) or 1.0
    x, extra = (rows - centre) / scale, (others - centre) / scale
    n, weights = len(x), np.asarray(beside.weights, dtype=np.float64)[counted]
    chosen = (
        PenaltyChoice(c, "set by you")
        if c
        else choose_c(x, y[:n], seed, beside=ExtraRows(extra, y[n:], weights))
    )
    both, w = np.concatenate([x, extra]), np.concatenate([np.ones(n), weights])
    first = first_softmax(both, y)
    table = fit_softmax(both, y, chosen.c, first, tolerance=1e-5, steps=1000, weights=w)
    raw = table[:, :-1] / scale
    fitted = Probe(
        raw, table[:, -1] - raw @ centre, chosen.c, chosen.because, chosen.losses, chosen.held_out
    )
    return spread(fitted, present, classes, y)


class PenaltyChoice(NamedTuple):
    """A C, why, the losses seen on the way, and the out-of-fold logits [n, C] at it."""

    c: float
    because: str
    losses: tuple[tuple[float, float], ...] = ()
    held_out: Array | None = None


def choose_c(
    x: Array, y: Ints, seed: int, grid: Sequence[float] = GRID, beside: ExtraRows | None = None
) -> PenaltyChoice:
    """The C of the smallest cross-validated log loss; rows ``beside``, in the same units, are
    learned from in every fold."""
    folds = stratified_folds(y, FOLDS, seed)
    places = [folds == fold for fold in range(FOLDS) if (folds == fold).any()]
    if not places:
        return PenaltyChoice(UNTESTED_C, "too few rows to choose it by cross-validation")
    parts = [(x[~held], y[~held], x[held], y[held]) for held in places]
    weights: list[Array | None] = [None] * len(parts)
    most = int(y.max()) + 1
    if beside is not None:
        most = max(most, int(beside.labels.max()) + 1)
        weights = [np.concatenate([np.ones(len(ys)), beside.weights]) for _, ys, _, _ in parts]
        parts = [
            (np.concatenate([xs, beside.features]), np.concatenate([ys, beside.labels]), hs, hys)
            for xs, ys, hs, hys in parts
        ]
    tables = [first_softmax(rows, labels) for rows, labels, _, _ in parts]
    seen: list[tuple[float, float]] = []
    kept = np.full((len(y), most), np.nan)
    for c in grid:
        answers, total = np.full_like(kept, np.nan), 0.0
        for place, (rows, labels, held, wanted) in enumerate(parts):
            # From the fit at the last penalty, and loosely: the fit at the chosen one is tight.
            tables[place] = fit_softmax(
                rows, labels, c, tables[place], tolerance=1e-3, steps=300, weights=weights[place]
            )
            answers[places[place]] = logits = logits_of(tables[place], held)
            total += softmax_losses(logits, wanted).sum()
        seen.append((c, total / int((folds >= 0).sum())))
        best = min(range(len(seen)), key=lambda index: seen[index][1])
        if best == len(seen) - 1:
            kept = answers
        if len(seen) - 1 - best >= WORSE_IN_A_ROW:
            break
    because = f"log loss {seen[best][1]:.4f} in {len(parts)}-fold cross-validation"
    return PenaltyChoice(seen[best][0], because, tuple(seen), kept)


def stratified_folds(y: Ints, folds: int, seed: int) -> npt.NDArray[np.int64]:
    """A fold for every row [n]: the rows of each class are dealt out in turn, the next class
    going on where the last one ended. −1 marks the row of a class with one row only."""
    dealt = np.full(len(y), -1, dtype=np.int64)
    random, at = generator(seed, "probe folds"), 0
    for label in np.unique(y):
        rows = random.permutation(np.flatnonzero(y == label))
        if len(rows) > 1:
            dealt[rows] = (at + np.arange(len(rows))) % folds
            at += len(rows)
    return dealt


def spread(probe: Probe, present: Ints, classes: int, y: Ints) -> Probe:
    """From the classes ``present`` [fewer] to all, for rows of these labels ``y`` [n]."""
    weight = np.zeros((classes, probe.weight.shape[1]))
    # Below all others, as if half a row of n had been seen.
    bias = np.full(classes, probe.bias.min() - np.log(2 * len(y)))
    weight[present], bias[present] = probe.weight, probe.bias
    held = probe.held_out
    if held is not None and len(present) < classes:
        lowest = held.min(axis=1, keepdims=True) - np.log(2 * len(y))
        held = np.repeat(lowest, classes, axis=1)
        held[:, present] = probe.held_out
    return replace(probe, weight=weight, bias=bias, held_out=held)


def check_rows(x: Array, y: Ints, classes: int) -> None:
    """Raise ``ModelError`` for rows that no head can be fitted to."""
    if x.ndim != 2 or len(x) == 0 or len(x) != len(y):
        raise ModelError(
            "linear probe", "needs one row of features for each label", (x.shape, y.shape)
        )
    if not np.isfinite(x).all():
        raise ModelError("linear probe", "met features that are not finite numbers")
    if y.min() < 0 or y.max() >= classes:
        raise ModelError("linear probe", f"met a label outside 0 to {classes - 1}", int(y.max()))
