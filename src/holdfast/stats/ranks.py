"""Ranks, and Wilcoxon's signed-rank test of paired differences with the shift that it measures.

Siblings: ``paired_bootstrap`` asks about the mean, which a few rows with huge losses can decide;
this asks whether differences lie evenly around 0, and such rows count only by their rank. Under
skewed differences the two are different questions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.stats.intervals import normal_quantile

# Up to where ``scipy.stats.wilcoxon`` takes the exact law by itself.
EXACT = 50


@dataclass(frozen=True, slots=True)
class Shift:
    """The Hodges–Lehmann shift with its interval, the two-sided p-value of "no shift", and the
    number of differences."""

    value: float
    low: float
    high: float
    p_value: float
    n: int


def average_ranks(values: Floats) -> Floats:
    """The rank of each value [n], from 1 for the smallest; equal values share their mean rank.

    ``scipy.stats.rankdata`` for one line of finite numbers, without importing ``scipy.stats``.
    """
    _, place, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])


def signed_rank(first: Floats, second: Floats, level: float = 0.95) -> Shift:
    """Wilcoxon's test (1945) that first − second [n] is symmetric around 0.

    Differences of exactly 0 are ranked and then left out (Pratt 1959); equal sizes share their
    mean rank. The p-value is exact up to 50 differences without zeros or ties, else from the normal
    law with the variance corrected for ties (``scipy.stats.wilcoxon``). The value is the median of
    all means of two differences (Walsh averages, i ≤ j; Hodges and Lehmann 1963), its limits the
    Walsh averages that the test's own law cuts off; it takes O(n log n) time and O(n) memory. With
    zeros or ties the interval is a little wide.

    All differences 0: value 0, p = 1. None, or one that is not finite: NaN throughout. Up to five
    differences cannot reach 5 %: the interval then spans everything, (−∞, ∞).
    """
    from scipy.stats import wilcoxon

    gap = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    n = len(gap)
    if not n or not np.isfinite(gap).all():
        return Shift(math.nan, math.nan, math.nan, math.nan, n)
    sizes = np.abs(gap)
    tied = len(np.unique(sizes)) < n or bool(np.any(sizes == 0))
    how: Literal["exact", "approx"] = "exact" if n <= EXACT and not tied else "approx"
    p_value = 1.0
    if sizes.any():
        p_value = float(wilcoxon(gap, zero_method="pratt", method=how).pvalue)
    value, low, high = _walsh_limits(np.sort(gap), level)
    return Shift(value, low, high, p_value, n)


def _walsh_limits(gap: Floats, level: float) -> tuple[float, float, float]:
    n = len(gap)
    total = n * (n + 1) // 2
    # There are n² ÷ 2 Walsh averages; counting those below a value takes no more than a search in
    # the sorted differences, so none of them is ever made.
    middle = (_walsh(gap, (total + 1) // 2) + _walsh(gap, total // 2 + 1)) / 2
    cut = _cut(n, level)
    if cut < 1:
        return middle, -math.inf, math.inf
    return middle, _walsh(gap, cut), _walsh(gap, total + 1 - cut)


def _cut(n: int, level: float) -> int:
    """How many Walsh averages lie at or beyond each limit: the largest c with
    P(W ≤ c − 1) ≤ (1 − level) ÷ 2."""
    tail = (1 - level) / 2
    if n <= EXACT:
        below = np.cumsum(_counts(n)) / 2.0**n
        return int(np.searchsorted(below, tail, side="right"))
    spread = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    return math.floor(n * (n + 1) / 4 + 0.5 - normal_quantile(level) * spread)


def _counts(n: int) -> Floats:
    """Of the 2ⁿ sets of signs, how many give each sum of positive ranks, [n(n+1)/2 + 1]."""
    counts = np.zeros(n * (n + 1) // 2 + 1)
    counts[0] = 1
    for rank in range(1, n + 1):
        counts[rank:] += counts[:-rank].copy()
    return counts


def _walsh(gap: Floats, k: int) -> float:
    """The k-th smallest mean of two differences, by bisection on its value; ``gap`` sorted."""
    low, high = float(gap[0]), float(gap[-1])
    # Neighbouring float64 are reached in some 60 halvings, near 0 only in a thousand: 2⁻²⁰⁰ of the
    # range is near enough.
    for _ in range(200):
        middle = low + (high - low) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if _at_most(gap, middle) >= k else (middle, high)
    return low if _at_most(gap, low) >= k else high


def _at_most(gap: Floats, value: float) -> int:
    """How many pairs i ≤ j have (gap_i + gap_j) ÷ 2 ≤ value."""
    ends: Ints = np.searchsorted(gap, 2 * value - gap, side="right")
    return int(np.clip(ends - np.arange(len(gap)), 0, None).sum())
