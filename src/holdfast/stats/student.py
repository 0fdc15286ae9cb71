"""Student's intervals of a mean difference: closed forms for places that cannot afford resampling.

Siblings: ``paired.paired_bootstrap`` follows the skew of the rows and costs a thousand times as
much; at 50 rows and more of cross-entropy losses the two limits differ by a few per cent of the
interval's width.
"""

from __future__ import annotations

import math

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.stats.paired import Difference


def paired_t(
    first: Floats, second: Floats, level: float = 0.95, groups: Ints | None = None
) -> Difference:
    """mean(first − second) over the same rows [n], ± t_{n−1} · sd ÷ √n (Student 1908).

    With ``groups`` [n], whole numbers, the n of it are groups (``by_groups``).

    ``above`` is the probability that t with n − 1 degrees of freedom lies below mean ÷ se: the
    share of a flat posterior above 0, and 1 − the one-sided p-value of "not above 0". No rows, or
    a value that is not finite: NaN throughout. One row: no interval. All differences equal: an
    interval without width.
    """
    gap: Floats = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    gap = gap if groups is None or not len(gap) else by_groups(gap, groups)
    n = len(gap)
    if not n or not np.isfinite(gap).all():
        return Difference(math.nan, math.nan, math.nan, math.nan, n)
    mean = float(gap.mean())
    if n < 2:
        return Difference(mean, math.nan, math.nan, math.nan, n)
    return around(mean, float(gap.std(ddof=1)) / math.sqrt(n), n - 1, level, n)


def by_groups(rows: Floats, groups: Ints) -> Floats:
    """One number a group [G] in place of ``rows`` [n] that come in ``groups`` [n]: the mean of the
    rows is theirs, and its error their sd ÷ √G.

    It is mean + Σ (row − mean) ÷ (n ÷ G), summed over the rows of a group: a group counts by what
    its rows add up to (the linearised ratio of sums, Cochran 1977, 6.3). Rows that are each a group
    of their own stay as they are.
    """
    mean = float(rows.mean())
    _, codes = np.unique(groups, return_inverse=True)
    total = np.bincount(codes, rows - mean)
    return np.asarray(mean + total * len(total) / len(rows))


def welch(first: Floats, second: Floats, level: float = 0.95) -> Difference:
    """mean(first) − mean(second) of different rows [n], [m], with unequal variances (Welch 1947):
    ± t_ν · √(s₁²/n + s₂²/m), ν of Satterthwaite. ``n`` of the result is the smaller of the two.

    Fewer than two rows on a side, or a value that is not finite: no interval.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    least = min(len(one), len(two))
    if not least or not (np.isfinite(one).all() and np.isfinite(two).all()):
        return Difference(math.nan, math.nan, math.nan, math.nan, least)
    mean = float(one.mean() - two.mean())
    if least < 2:
        return Difference(mean, math.nan, math.nan, math.nan, least)
    parts = one.var(ddof=1) / len(one), two.var(ddof=1) / len(two)
    total = float(sum(parts))
    if not total:
        return Difference(mean, mean, mean, float(mean > 0) + 0.5 * (mean == 0), least)
    freedom = total**2 / (parts[0] ** 2 / (len(one) - 1) + parts[1] ** 2 / (len(two) - 1))
    return around(mean, math.sqrt(total), float(freedom), level, least)


def around(mean: float, error: float, freedom: float, level: float, n: int) -> Difference:
    """``mean`` ± t ``error`` with so many degrees of ``freedom``, of ``n`` rows."""
    from scipy.special import stdtr, stdtrit

    if not error:
        return Difference(mean, mean, mean, float(mean > 0) + 0.5 * (mean == 0), n)
    half = float(stdtrit(freedom, 0.5 + level / 2)) * error
    return Difference(mean, mean - half, mean + half, float(stdtr(freedom, mean / error)), n)
