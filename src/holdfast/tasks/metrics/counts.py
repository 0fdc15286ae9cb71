"""Precision, recall and F1 from per-class counts, for one sample or many resamples at once.

One policy everywhere, the same as scikit-learn's ``zero_division=0`` over the classes that occur:
a class that is neither labelled nor predicted in the sample is left out of the averages (NaN per
class); a class that is never predicted has precision 0, one that is never a label recall 0. The
macro mean gives each occurring class one vote, the weighted mean as many as it has labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints, Outputs
from holdfast.tasks.metrics.base import Metric, add_metric


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows per class, each [..., classes]: correctly predicted, predicted, labelled."""

    right: Floats
    predicted: Floats
    labelled: Floats

    @property
    def occurs(self) -> Floats:
        """1 where the class is labelled or predicted at all, else NaN."""
        return np.where(self.predicted + self.labelled > 0, 1.0, np.nan)


def indicators(labels: Ints, predictions: Ints, classes: int) -> Floats:
    """One line a row, [n, 3·classes]: correct, predicted, labelled; their sums are ``Counts``."""
    rows = np.arange(len(labels))
    table = np.zeros((len(labels), 3, classes))
    table[rows, 1, predictions] = 1
    table[rows, 2, labels] = 1
    table[:, 0] = table[:, 1] * table[:, 2]
    return table.reshape(len(labels), 3 * classes)


def from_sums(table: Floats) -> Counts:
    """Sums of ``indicators`` [..., 3·classes] as ``Counts``."""
    right, predicted, labelled = np.split(table, 3, axis=-1)
    return Counts(right, predicted, labelled)


def count(labels: Ints, predictions: Ints, classes: int) -> Counts:
    """The counts of one sample."""
    tallies = (labels[labels == predictions], predictions, labels)
    return Counts(*(np.bincount(part, minlength=classes).astype(np.float64) for part in tallies))


def precision(counts: Counts) -> Floats:
    """right ÷ predicted, [..., classes]; 0 where never predicted."""
    return _share(counts.right, counts.predicted) * counts.occurs


def recall(counts: Counts) -> Floats:
    """right ÷ labelled, [..., classes]; 0 where never labelled."""
    return _share(counts.right, counts.labelled) * counts.occurs


def f1(counts: Counts) -> Floats:
    """2·right ÷ (predicted + labelled), [..., classes]: the harmonic mean of the two above."""
    return _share(2 * counts.right, counts.predicted + counts.labelled) * counts.occurs


def macro(per_class: Floats) -> Floats:
    """The plain mean over the classes that occur, [...]; NaN where none does."""
    seen = np.isfinite(per_class)
    return _share(np.where(seen, per_class, 0.0).sum(-1), seen.sum(-1), empty=np.nan)


def weighted(per_class: Floats, counts: Counts) -> Floats:
    """The mean over classes weighted by their labels, [...]; NaN where there are none."""
    # A class that does not occur has no labels: its NaN must not reach the sum.
    total = (np.nan_to_num(per_class) * counts.labelled).sum(-1)
    return _share(total, counts.labelled.sum(-1), empty=np.nan)


def _share(part: Floats, whole: Floats, empty: float = 0.0) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.full_like(part, empty), where=whole > 0))


def _metric(name: str, of_counts: Callable[[Counts], Floats]) -> Metric:
    def compute(outputs: Outputs, classes: tuple[str, ...]) -> float:
        return float(of_counts(count(outputs.labels, outputs.predictions, len(classes))))

    return add_metric(Metric(name, True, 0.0, 1.0, compute))


PRECISION_MACRO = _metric("precision_macro", lambda counts: macro(precision(counts)))
PRECISION_WEIGHTED = _metric("precision_weighted", lambda c: weighted(precision(c), c))
RECALL_MACRO = _metric("recall_macro", lambda counts: macro(recall(counts)))
RECALL_WEIGHTED = _metric("recall_weighted", lambda counts: weighted(recall(counts), counts))
F1_MACRO = _metric("f1_macro", lambda counts: macro(f1(counts)))
F1_WEIGHTED = _metric("f1_weighted", lambda counts: weighted(f1(counts), counts))
