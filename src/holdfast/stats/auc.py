"""The area under the ROC curve with its interval, and the difference of two areas on the same rows
(DeLong).

The area is the probability that a positive row scores above a negative one, ties half. It needs no
threshold, and does not depend on the share of positives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats
from holdfast.stats.intervals import clopper_pearson, normal_quantile


def average_ranks(values: Floats) -> Floats:
    """The rank of each value [n], from 1 for the smallest; equal values share their mean rank.

    Equal to ``scipy.stats.rankdata`` for finite numbers, without importing ``scipy.stats``.
    """
    _, place, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])


Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Area:
    """An area with its interval and standard error."""

    value: float
    low: float
    high: float
    error: float


@dataclass(frozen=True, slots=True)
class AreaDifference:
    """area(first) − area(second) with its interval and the two-sided p-value of "no difference"."""

    value: float
    low: float
    high: float
    p_value: float


def delong(labels: Bools, scores: Floats, level: float = 0.95) -> Area:
    """The area under the ROC curve with DeLong's standard error (DeLong, DeLong and Clarke-Pearson
    1988), from midranks in O(n log n) (Sun and Xu 2014).

    Var = Var₊(V) ÷ n₊ + Var₋(V) ÷ n₋, where V of a row is the share of the other class on the
    correct side of it. The interval is computed on the logit of the area (Pepe 2003), so it stays
    within (0, 1) and has better coverage near 1 than area ± z·error. If the classes are perfectly
    separated the error is 0 and uninformative: the limit is then Clopper and Pearson's for min(n₊,
    n₋) pairs of different rows, all in the correct order, which is exact and wide.

    ``labels`` [n], ``scores`` [n]. Only one class, or a score that is NaN: NaN throughout. One row
    of a class: the area, without an interval.
    """
    positive, negative = int(np.sum(labels)), int(np.sum(~labels))
    nothing = (math.nan, math.nan, math.nan)
    if not positive or not negative or np.isnan(scores).any():
        return Area(math.nan, *nothing)
    above, below = _placements(labels, np.asarray(scores, dtype=np.float64)[None])
    value = float(above.mean())
    if min(positive, negative) < 2:
        return Area(value, *nothing)
    error = math.sqrt(float(_covariance(above, below)[0, 0]))
    if value in (0.0, 1.0):
        pairs = min(positive, negative)
        limits = clopper_pearson(round(value * pairs), pairs, level)
    else:
        logit = math.log(value / (1 - value))
        # The delta method: the logit's derivative is 1 ÷ (p (1 − p)).
        half = normal_quantile(level) * error / (value * (1 - value))
        limits = _expit(logit - half), _expit(logit + half)
    return Area(value, *limits, error)


def delong_difference(labels: Bools, first: Floats, second: Floats) -> AreaDifference:
    """DeLong's test that two scores of the same rows have equal areas, with the 95 % interval
    difference ± z·error.

    The error uses the covariance of the two areas, so the difficulty of a row for both cancels. If
    both scores rank the rows equally: 0 without width and p = 1. Another difference without
    variance (both separate perfectly, or nearly): p and limits NaN. One class, fewer than two rows
    of a class, or NaN: NaN throughout, except for the value if it exists.
    """
    from scipy.special import ndtr

    scores = np.stack([first, second]).astype(np.float64)
    if labels.all() or not labels.any() or np.isnan(scores).any():
        return AreaDifference(math.nan, math.nan, math.nan, math.nan)
    above, below = _placements(labels, scores)
    value = float(above[0].mean() - above[1].mean())
    if min(above.shape[1], below.shape[1]) < 2:
        return AreaDifference(value, math.nan, math.nan, math.nan)
    covariance = _covariance(above, below)
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    # Two terms of a variance that cancel leave rounding of about 1e-17, whose root would look like
    # a tiny error.
    if variance <= 1e-16:
        if np.array_equal(above[0], above[1]):
            return AreaDifference(0.0, 0.0, 0.0, 1.0)
        return AreaDifference(value, math.nan, math.nan, math.nan)
    error = math.sqrt(variance)
    half = normal_quantile(0.95) * error
    p_value = 2 * float(ndtr(-abs(value) / error))
    return AreaDifference(value, max(-1.0, value - half), min(1.0, value + half), p_value)


def _placements(labels: Bools, scores: Floats) -> tuple[Floats, Floats]:
    """For each row of a class, the share of the other class on the correct side of it (ties half):
    positives [scores, n₊] and negatives [scores, n₋]."""
    from scipy.stats import rankdata

    # A row's rank among all minus its rank in its own class is the number of rows of the other
    # class below it, so no pair is compared.
    joint = rankdata(scores, axis=1)
    within = rankdata(scores[:, labels], axis=1), rankdata(scores[:, ~labels], axis=1)
    positive, negative = within[0].shape[1], within[1].shape[1]
    above = (joint[:, labels] - within[0]) / negative
    below = 1 - (joint[:, ~labels] - within[1]) / positive
    return np.asarray(above), np.asarray(below)


def _covariance(above: Floats, below: Floats) -> Floats:
    covariance = np.cov(above) / above.shape[1] + np.cov(below) / below.shape[1]
    # Of a single score ``np.cov`` gives a bare number.
    return np.asarray(covariance).reshape(len(above), len(above))


def _expit(x: float) -> float:
    # ``math.exp`` raises an OverflowError above 709.
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0
