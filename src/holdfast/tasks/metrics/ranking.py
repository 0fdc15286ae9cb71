"""ROC-AUC and average precision, for two classes; the positive class is the second, in sorted
order. Both read the order of the rows by score alone, so temperature cannot move them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Outputs
from holdfast.tasks.metrics.base import Metric, add_metric

ONE_CLASS = "it needs exactly two classes, and rows of both"


class Ranking:
    """Scores [n] and labels [n] sorted once, to be evaluated under many weightings of the rows.

    Ties share a rank. Methods take weights [r, n] in the original order and return [r], NaN where
    the weighted sample has rows of one class only.
    """

    def __init__(self, scores: Floats, positive: npt.NDArray[np.bool_]) -> None:
        # Sorted once: a resample changes weights, never the order.
        self._order = np.argsort(scores, kind="stable")
        ordered = np.asarray(scores)[self._order]
        self._starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        self._positive = np.asarray(positive)[self._order].astype(np.float64)

    def roc_auc(self, weights: Floats) -> Floats:
        """P(a positive row scores higher than a negative one), ties half (Mann–Whitney)."""
        positive, negative = self._by_score(weights)
        below = np.cumsum(negative, axis=1) - negative / 2
        pairs = positive.sum(1) * negative.sum(1)
        return _ratio((positive * below).sum(1), pairs)

    def average_precision(self, weights: Floats) -> Floats:
        """Σ over scores, from the highest, of (rise of recall) × precision (no interpolation)."""
        positive, negative = self._by_score(weights)
        positive, negative = positive[:, ::-1], negative[:, ::-1]
        found = np.cumsum(positive, axis=1)
        precision = _ratio(found, found + np.cumsum(negative, axis=1), empty=0.0)
        one_class = negative.sum(1) == 0
        value = _ratio((positive * precision).sum(1), positive.sum(1))
        return np.where(one_class, np.nan, value)

    def _by_score(self, weights: Floats) -> tuple[Floats, Floats]:
        ordered = weights[:, self._order]
        positive = ordered * self._positive
        # Without ties every row is a step of its own, and nothing needs adding up.
        if len(self._starts) == len(self._order):
            return positive, ordered - positive
        positive = np.add.reduceat(positive, self._starts, axis=1)
        return positive, np.add.reduceat(ordered, self._starts, axis=1) - positive


def rank(outputs: Outputs) -> Ranking:
    """The ranking of two-class outputs by the logit of the second class over the first."""
    logits = outputs.logits.astype(np.float64)
    return Ranking(logits[:, 1] - logits[:, 0], outputs.labels == 1)


def _ratio(part: Floats, whole: Floats, empty: float = np.nan) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.full_like(part, empty), where=whole > 0))


def _metric(name: str, of_ranking: Callable[[Ranking, Floats], Floats]) -> Metric:
    def compute(outputs: Outputs, classes: tuple[str, ...]) -> float | None:
        if len(classes) != 2:
            return None
        return float(of_ranking(rank(outputs), np.ones((1, len(outputs.labels))))[0])

    return add_metric(Metric(name, True, 0.0, 1.0, compute, ONE_CLASS, two_classes=True))


ROC_AUC = _metric("roc_auc", Ranking.roc_auc)
AVERAGE_PRECISION = _metric("average_precision", Ranking.average_precision)
