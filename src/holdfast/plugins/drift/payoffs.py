"""Values in [0, 1] by which a row bets that rows have changed, and how far the mean of each may lie
where nothing has.

A reference is finite. Whoever holds a stream without end against it, row after row, tells the two
apart in the end however alike they are, since the stream's mean becomes known ever better and the
reference's does not. So what is tested is not "the same law" but

    the stream's mean is at most what ``m`` reference rows leave plausible for their own law,

an upper limit at the certainty ``SURE``.
What lies within it cannot be told from chance in choosing the reference, however long one waits.
"""

from __future__ import annotations

import math

import numpy as np

from holdfast.core.records import Floats
from holdfast.stats.streams.means import mean_above, share_above

# Of one bet, one-sided: that of 2.5 standard errors. A reference less typical than that, one of 160
# for the direction in which it is least typical, gives alarms in clean traffic.
SURE = 0.99379
# Of a uniform value.
SPREAD = 1 / math.sqrt(12)
# The tenth of the rows that is furthest out.
TAIL = 0.1


def ranks(values: Floats, among: Floats) -> Floats:
    """The share of the sorted ``among`` [m] below each of ``values`` [n], ties half: uniform where
    both are of one law; its mean is the area under the ROC curve."""
    low = np.searchsorted(among, values, side="left")
    high = np.searchsorted(among, values, side="right")
    return np.asarray((low + high) / (2 * len(among)))


def tail_place(m: int) -> int:
    """How many of ``m`` rows are the furthest tenth: at least one."""
    return max(1, round(TAIL * m))


def in_tail(values: Floats, among: Floats) -> Floats:
    """1 for values above all but the furthest tenth of the sorted ``among``, else 0."""
    edge = among[len(among) - tail_place(len(among))]
    return np.asarray(values > edge, dtype=np.float64)


def rank_bound(m: int, sure: float = SURE) -> float:
    """The largest plausible mean of ``ranks`` among ``m`` rows of the same law."""
    return min(0.5 + mean_above(m, SPREAD, sure), 0.99)


def tail_bound(m: int, sure: float = SURE) -> float:
    """The largest plausible mean of ``in_tail``. Of rows of the same law the share above the j-th
    largest of ``m`` is Beta(j, m − j + 1)."""
    return min(share_above(tail_place(m) - 1, m, sure), 0.99)


def shared(sure: float, bets: int) -> float:
    """The certainty of each of ``bets`` that keeps the chance of any error (Bonferroni)."""
    return 1 - (1 - sure) / max(1, bets)
