"""Metrics of predicted classes and their registry: accuracy, likelihood, ranking, calibration, and
precision, recall and F1 from counts, for one sample or many resamples at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.discovery import Registry
from holdfast.core.records import Floats, Ints, Outputs
from holdfast.stats.temperature import best_temperature

Function = Callable[[Outputs, tuple[str, ...]], float | None]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of a classifier's outputs.

    ``low`` and ``high`` bound it (infinite where open); ``undefined`` is the reason for the user
    if ``compute`` returns ``None``; ``two_classes`` marks a metric for exactly two classes.
    """

    name: str
    higher_is_better: bool
    low: float
    high: float
    function: Function
    undefined: str = "there are no rows"
    two_classes: bool = False

    def compute(self, outputs: Outputs, classes: tuple[str, ...]) -> float | None:
        """The value, or ``None`` if it is undefined; never NaN."""
        if not len(outputs.labels):
            return None
        value = self.function(outputs, classes)
        return None if value is None or not math.isfinite(value) else float(value)


METRICS: Registry[Metric] = Registry("metric", "train.metric")


def add_metric(metric: Metric) -> Metric:
    """Register a metric of classes under its name."""
    return METRICS.add(metric.name, metric)


def accuracy(outputs: Outputs, classes: tuple[str, ...]) -> float:
    """Σ 1[prediction = label] ÷ n, in [0, 1]. With tied logits the lower class is predicted."""
    return float(np.mean(outputs.predictions == outputs.labels))


add_metric(Metric("accuracy", True, 0.0, 1.0, accuracy))


def loss(outputs: Outputs, classes: tuple[str, ...]) -> float:
    """Mean cross-entropy in nats, from 0; ln(classes) for a model that knows nothing."""
    return float(np.mean(outputs.losses))


def refined_loss(outputs: Outputs, classes: tuple[str, ...]) -> float:
    """Calibrated loss: mean cross-entropy in nats after the temperature that minimises it on these
    same rows (Berta et al., 2501.19195), which measures predictions apart from their confidence.
    For choosing a checkpoint, not for a test score, since the temperature is fitted on the rows
    that are scored."""
    return best_temperature(outputs.logits, outputs.labels)[1]


def brier(outputs: Outputs, classes: tuple[str, ...]) -> float:
    """Mean of Σ_c (p_c − 1[c = label])², in [0, 2] (Brier 1950, the sum over all classes)."""
    gap = outputs.probabilities.copy()
    gap[np.arange(len(gap)), outputs.labels] -= 1
    return float(np.mean((gap**2).sum(axis=1)))


NO_LOSS = "there are no rows, or a loss is not finite"
NO_LOGIT = "there are no rows, or a logit is not finite"
add_metric(Metric("loss", False, 0.0, math.inf, loss, NO_LOSS))
add_metric(Metric("refined_loss", False, 0.0, math.inf, refined_loss, NO_LOGIT))
add_metric(Metric("brier", False, 0.0, 2.0, brier))
ONE_CLASS = "it needs exactly two classes, and rows of both"


class Ranking:
    """Scores [n] and labels [n], sorted once and evaluated with many weightings of the rows.

    Ties share a rank. Methods take weights [r, n] in the original order and return [r], NaN if the
    weighted sample has rows of only one class.
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
        return _share((positive * below).sum(1), pairs, empty=np.nan)

    def average_precision(self, weights: Floats) -> Floats:
        """Σ over scores, from the highest, of (rise of recall) × precision (no interpolation)."""
        positive, negative = self._by_score(weights)
        positive, negative = positive[:, ::-1], negative[:, ::-1]
        hits = np.cumsum(positive, axis=1)
        precision = _share(hits, hits + np.cumsum(negative, axis=1))
        one_class = negative.sum(1) == 0
        value = _share((positive * precision).sum(1), positive.sum(1), empty=np.nan)
        return np.where(one_class, np.nan, value)

    def _by_score(self, weights: Floats) -> tuple[Floats, Floats]:
        ordered = weights[:, self._order]
        positive = ordered * self._positive
        # Without ties every row is its own step, and nothing needs to be added up.
        if len(self._starts) == len(self._order):
            return positive, ordered - positive
        positive = np.add.reduceat(positive, self._starts, axis=1)
        return positive, np.add.reduceat(ordered, self._starts, axis=1) - positive


def rank(outputs: Outputs) -> Ranking:
    """The ranking of two-class outputs by the logit of the second class over the first."""
    logits = outputs.logits.astype(np.float64)
    return Ranking(logits[:, 1] - logits[:, 0], outputs.labels == 1)


def _ranking_metric(name: str, of_ranking: Callable[[Ranking, Floats], Floats]) -> Metric:
    def compute(outputs: Outputs, classes: tuple[str, ...]) -> float | None:
        if len(classes) != 2:
            return None
        return float(of_ranking(rank(outputs), np.ones((1, len(outputs.labels))))[0])

    return add_metric(Metric(name, True, 0.0, 1.0, compute, ONE_CLASS, two_classes=True))


_ranking_metric("roc_auc", Ranking.roc_auc)
_ranking_metric("average_precision", Ranking.average_precision)


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
    """One line per row, [n, 3·classes]: correct, predicted, labelled; their sums are ``Counts``."""
    rows = np.arange(len(labels))
    table = np.zeros((len(labels), 3, classes))
    table[rows, 1, predictions] = 1
    table[rows, 2, labels] = 1
    table[:, 0] = table[:, 1] * table[:, 2]
    return table.reshape(len(labels), 3 * classes)


def count(labels: Ints, predictions: Ints, classes: int) -> Counts:
    """The counts of one sample."""
    tallies = (labels[labels == predictions], predictions, labels)
    return Counts(*(np.bincount(part, minlength=classes).astype(np.float64) for part in tallies))


def precision(counts: Counts) -> Floats:
    """right ÷ predicted, [..., classes]; 0 for a class that is never predicted."""
    return _share(counts.right, counts.predicted) * counts.occurs


def recall(counts: Counts) -> Floats:
    """right ÷ labelled, [..., classes]; 0 for a class that is never labelled."""
    return _share(counts.right, counts.labelled) * counts.occurs


def f1(counts: Counts) -> Floats:
    """2·right ÷ (predicted + labelled), [..., classes]: the harmonic mean of precision and
    recall."""
    return _share(2 * counts.right, counts.predicted + counts.labelled) * counts.occurs


def macro(per_class: Floats) -> Floats:
    """The unweighted mean over the classes that occur, [...]; NaN if none does."""
    defined = np.isfinite(per_class)
    return _share(np.where(defined, per_class, 0.0).sum(-1), defined.sum(-1), empty=np.nan)


def weighted(per_class: Floats, counts: Counts) -> Floats:
    """The mean over classes weighted by their labels, [...]; NaN without labels."""
    # A class that does not occur has no labels: its NaN must not reach the sum.
    total = (np.nan_to_num(per_class) * counts.labelled).sum(-1)
    return _share(total, counts.labelled.sum(-1), empty=np.nan)


def _share(part: Floats, total: Floats, empty: float = 0.0) -> Floats:
    return np.asarray(np.divide(part, total, out=np.full_like(part, empty), where=total > 0))


def _add_averages(name: str, per_class: Callable[[Counts], Floats]) -> None:
    def of_macro(outputs: Outputs, classes: tuple[str, ...]) -> float:
        return float(macro(per_class(count(outputs.labels, outputs.predictions, len(classes)))))

    def of_weighted(outputs: Outputs, classes: tuple[str, ...]) -> float:
        counts = count(outputs.labels, outputs.predictions, len(classes))
        return float(weighted(per_class(counts), counts))

    add_metric(Metric(f"{name}_macro", True, 0.0, 1.0, of_macro))
    add_metric(Metric(f"{name}_weighted", True, 0.0, 1.0, of_weighted))


_add_averages("precision", precision)
_add_averages("recall", recall)
_add_averages("f1", f1)


# The number of bins of Guo et al. (1706.04599).
BINS = 15
ROWS_PER_BIN = 10


@dataclass(frozen=True, slots=True)
class Bins:
    """Rows by confidence: ``edges`` [bins + 1], the bin of each row ``member`` [n], and each
    row's ``confidence`` and whether it is correct (``right``) [n]. No bin is empty."""

    edges: Floats
    member: Ints
    confidence: Floats
    right: Floats

    @property
    def count(self) -> int:
        """The number of bins, 15 at most."""
        return len(self.edges) - 1


def confidence_bins(outputs: Outputs) -> Bins:
    """At most 15 bins of equal mass over the confidence (the largest probability), with at least
    10 rows each if n allows (so min(15, n ÷ 10) bins, and one below 20 rows). Equal mass, because
    equal widths leave most bins nearly empty (Nixon et al., 1904.01685). Equal confidences stay in
    one bin, so ties can mean fewer bins."""
    probabilities = outputs.probabilities
    confidence = probabilities.max(axis=1)
    bin_count = max(1, min(BINS, len(confidence) // ROWS_PER_BIN))
    # Each edge is an observed confidence: one between two of them could separate equal ones by
    # rounding.
    inner = np.quantile(confidence, np.arange(1, bin_count) / bin_count, method="higher")
    lowest, highest = float(confidence.min()), float(confidence.max())
    # An edge at the lowest confidence would leave an empty bin below it.
    inner = np.unique(inner[inner > lowest])
    edges = np.concatenate([[lowest], inner, [highest]])
    member = np.searchsorted(inner, confidence, side="right")
    right = (outputs.predictions == outputs.labels).astype(np.float64)
    return Bins(edges, member, confidence, right)


def ece(outputs: Outputs, classes: tuple[str, ...]) -> float:
    """Expected calibration error: Σ_b (n_b ÷ n) |accuracy_b − mean confidence_b| over
    ``confidence_bins`` (Guo et al., 1706.04599), in [0, 1]. It is biased upwards in small
    samples: a perfectly calibrated model scores above 0."""
    bins = confidence_bins(outputs)
    gaps = np.bincount(bins.member, weights=bins.right - bins.confidence, minlength=bins.count)
    return float(np.abs(gaps).sum() / len(bins.member))


add_metric(Metric("ece", False, 0.0, 1.0, ece))
