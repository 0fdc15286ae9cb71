"""Precision, recall and F1, averaged and per class, with intervals, from the confusion cells.

Rows with the same label and prediction are one atom, drawn by a multinomial law, so that the cost
depends on the filled cells and not on the rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Estimate, Floats, Ints, Outputs
from holdfast.core.seeds import generator
from holdfast.metrics import classes as of
from holdfast.metrics.resample import ResampledUnits, joined_averages, to_estimate, undefined
from holdfast.stats.bootstrap import bootstrap, sums
from holdfast.stats.intervals import wilson, wilson_by_groups
from holdfast.stats.macro import f1_limits

Bools = npt.NDArray[np.bool_]
AVERAGES = ("precision_macro", "recall_macro", "f1_macro", "f1_weighted")


def confusion_counts(outputs: Outputs, classes: tuple[str, ...]) -> dict[str, Any]:
    """``{"classes", "counts"}``; a line of counts is a true class, a column a prediction."""
    size = len(classes)
    cells = outputs.labels.astype(np.int64) * size + outputs.predictions
    table = np.bincount(cells, minlength=size * size).reshape(size, size)
    return {"classes": list(classes), "counts": table.tolist()}


def confusion_scores(
    outputs: Outputs,
    classes: tuple[str, ...],
    units: ResampledUnits,
    seed: int,
    level: float,
    resamples: int,
) -> tuple[dict[str, Estimate], dict[str, dict[str, Any]]]:
    """The four averages, and per class ``{"n", "precision", "recall", "f1"}``.

    Averages: BCa. Where a class that occurs has fewer than ``RARE`` rows labelled or predicted, or
    no row is wrong, the bootstrap is blind, and the macro averages join the score intervals of the
    classes instead (``stats.macro``); not with groups, which are always resampled. Per class:
    Wilson, for F1 through the share of right rows among those labelled or predicted as the class;
    with groups, each is left out once, and Student's t for F1.
    """
    size = len(classes)
    multiplicity, table = _atoms(outputs, units, size)
    result = bootstrap(
        lambda weights: _values(weights @ table),
        multiplicity,
        level=level,
        seed=generator(seed, "bootstrap", "confusion"),
        resamples=resamples,
    )
    estimates = [
        to_estimate(result, column, level, units)
        if np.isfinite(result.value[column])
        else undefined("the class is neither labelled nor predicted here")
        for column in range(len(result.value))
    ]
    # The averages stand first; the classes that follow are read below.
    averages = dict(zip(AVERAGES, estimates, strict=False))
    f1 = estimates[len(AVERAGES) :]
    # Score intervals read rows as independent, which rows of a group are not.
    if not units.grouped:
        averages |= joined_averages(outputs, size, level, result)
        f1 = [_f1_of_class(outputs, index, level) for index in range(size)]
    per_class = {
        name: _of_class(outputs, index, units, level) | {"f1": f1[index]}
        for index, name in enumerate(classes)
    }
    return averages, per_class


def _atoms(outputs: Outputs, units: ResampledUnits, size: int) -> tuple[Ints, Floats]:
    """Multiplicity [atoms] and summed indicators [atoms, 3·classes] of cells, or of groups."""
    if units.grouped:
        rows = of.indicators(outputs.labels, outputs.predictions, size)
        return units.multiplicity, sums(rows, units.codes, units.atoms)
    cells, multiplicity = np.unique(
        outputs.labels.astype(np.int64) * size + outputs.predictions, return_counts=True
    )
    return multiplicity, of.indicators(cells // size, cells % size, size)


def _values(table: Floats) -> Floats:
    """Sums of indicators [r, 3·classes] → the averages, then F1 of each class, [r, 4 + classes]."""
    counts = of.from_sums(table)
    f1 = of.f1(counts)
    averages = [
        of.macro(of.precision(counts)),
        of.macro(of.recall(counts)),
        of.macro(f1),
        of.weighted(f1, counts),
    ]
    return np.concatenate([np.stack(averages, axis=1), f1], axis=1)


def _of_class(outputs: Outputs, index: int, units: ResampledUnits, level: float) -> dict[str, Any]:
    labelled, predicted = outputs.labels == index, outputs.predictions == index
    return {
        "n": int(labelled.sum()),
        "precision": _share(labelled, predicted, units, level, "the class is never predicted"),
        "recall": _share(predicted, labelled, units, level, "the class has no rows here"),
    }


def _f1_of_class(outputs: Outputs, index: int, level: float) -> Estimate:
    labelled, predicted = outputs.labels == index, outputs.predictions == index
    right, either = int((labelled & predicted).sum()), int((labelled | predicted).sum())
    if not either:
        return undefined("the class is neither labelled nor predicted here")
    low, high = f1_limits(np.array([right]), np.array([either]), level)
    return Estimate(2 * right / (right + either), float(low[0]), float(high[0]), level)


def _share(hits: Bools, among: Bools, units: ResampledUnits, level: float, empty: str) -> Estimate:
    if not among.any():
        return undefined(empty)
    kept = hits[among]
    value = float(kept.mean())
    if not units.grouped:
        low, high = wilson(float(kept.sum()), len(kept), level)
        return Estimate(value, low, high, level)
    # A group without a row of this class is no group of it.
    codes = np.unique(units.codes[among], return_inverse=True)[1].reshape(-1)
    low, high = wilson_by_groups(kept, codes, level)
    if np.isnan(low):
        return Estimate(value, level=level, why="no interval: all its rows are of one group")
    return Estimate(value, low, high, level, note="Wilson interval at the effective size")
