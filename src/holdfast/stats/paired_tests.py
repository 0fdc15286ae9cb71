"""Paired tests on the same rows: differences with intervals, McNemar's test, and the number of rows
needed.

The rows are the same, so their difficulty cancels: the difference of losses per row varies far
less than the difference of two means. ``ratio_rows`` turns a ratio of sums into a mean over rows,
so that any test of a mean can test it: R = Σ a ÷ Σ b is the mean of R + (a − R b) ÷ mean(b), with
the variance of R by the delta method (Cochran 1977, 6.3); the difference of two such rows is that
of two ratios over one b.

``paired_t`` and ``welch`` are Student's closed forms for cases where resampling takes too long;
``paired_bootstrap`` reflects the skewness of the rows and costs a thousand times as much. From 50
rows of cross-entropy losses the two limits differ by a few per cent of the interval's width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints
from holdfast.stats.bootstrap import atom_contributions, bootstrap, fold_atoms, sums
from holdfast.stats.intervals import group_freedom, wilson


def ratio_rows(above: Floats, below: Floats) -> Floats:
    """The rows [n] of Σ ``above`` ÷ Σ ``below``, both [n]; NaN if the sum below is 0."""
    total = float(np.sum(below))
    if not total:
        return np.full(len(above), np.nan)
    ratio = float(np.sum(above)) / total
    return np.asarray(ratio + (above - ratio * below) * (len(above) / total))


def loss_rows(losses: Floats, tokens: Ints | None) -> Floats:
    """The rows [n] of a mean loss: the ``losses`` [n] themselves; if they are means over
    ``tokens`` [n], those of the mean over all tokens."""
    if tokens is None or not len(losses):
        return losses
    weights = tokens.astype(np.float64)
    return ratio_rows(losses * weights, weights)


Bools = npt.NDArray[np.bool_]
# The names of the tests, shown next to their p-values.
MCNEMAR, MCNEMAR_EXACT = "McNemar's mid-p test", "McNemar's exact test"
BOOTSTRAP, PAIRED_T = "paired bootstrap", "paired t-test"
BY_GROUPS = "paired t-test over groups (jackknife)"
# Of two equal models, resamples of 3, 5, 10 and 20 normal rows gave p < 0.05 in 25, 18, 9 and 8 %
# of samples.
STUDENT_BELOW = 30


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean paired difference with its interval. ``above`` is the share of resamples in which it
    is above 0 (ties half), for groups or few rows Student's; NaN if nothing could be resampled."""

    value: float
    low: float
    high: float
    above: float
    n: int

    @property
    def p_value(self) -> float:
        """The two-sided p-value of "the mean is 0"; 1 if nothing could be resampled."""
        return min(1.0, 2 * min(self.above, 1 - self.above))

    @property
    def has_spread(self) -> bool:
        """Whether there is an interval that is wider than the rounding of equal differences."""
        return self.high - self.low > 1e-9 * max(1.0, abs(self.value))


def paired_bootstrap(
    first: Floats,
    second: Floats,
    *,
    seed: np.random.Generator,
    groups: Ints | None = None,
    level: float = 0.95,
    resamples: int = 2000,
) -> Difference:
    """mean(first − second) with a BCa interval over rows; with groups, one group is left out at a
    time, and the limits and ``above`` are Student's (``BootstrapResult.student``). Fewer than
    ``STUDENT_BELOW`` rows: ``above`` is Student's, and so are limits that are wider than BCa's.

    ``first``, ``second`` [n] are per-row losses or scores in the same order; ``groups`` [n] whole
    numbers. No rows: NaN throughout. One row or one group, or a value that is not finite: no
    interval. All differences equal: an interval without width. Above 5,000 rows or groups they are
    folded into 5,000 (``fold_atoms``).
    """
    from scipy.special import stdtr

    gap = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    if not len(gap):
        return Difference(math.nan, math.nan, math.nan, math.nan, 0)
    codes = np.arange(len(gap)) if groups is None else groups
    codes, atoms = fold_atoms(codes, int(codes.max()) + 1)
    # A ratio of sums, not a mean of means, because groups differ in size.
    table = sums(np.column_stack([gap, np.ones(len(gap))]), codes, atoms)

    def mean(weights: Floats) -> Floats:
        total = weights @ table
        return np.asarray(total[:, 0] / total[:, 1])

    if not np.isfinite(gap).all() or (groups is not None and atoms < 2):
        return Difference(float(gap.mean()), math.nan, math.nan, math.nan, len(gap))
    units = np.ones(atoms, dtype=np.int64)
    result = bootstrap(mean, units, seed=seed, level=level, resamples=resamples, blocks=500)
    value, low, high = (float(part[0]) for part in (result.value, result.low, result.high))
    if groups is not None and atoms > 1:
        freedom = group_freedom(table[:, 1])
        (low,), (high,) = result.student(freedom, level)
        error = float(result.error[0])
        # Without spread only the sign of the value is known.
        sign_share = 0.5 if value == 0 else float(value > 0)
        above = sign_share if error == 0 else float(stdtr(freedom, value / error))
        return Difference(value, float(low), float(high), above, len(gap))
    if atoms < STUDENT_BELOW:
        student = paired_t(gap, np.zeros_like(gap), level)
        low, high = min(low, student.low), max(high, student.high)
        return Difference(value, low, high, student.above, len(gap))
    draws = result.draws[:, 0]
    above = float(np.mean((draws > 0) + 0.5 * (draws == 0))) if len(draws) else math.nan
    return Difference(value, low, high, above, len(gap))


def mcnemar(first: Bools, second: Bools, *, mid: bool = True) -> float:
    """The p-value of McNemar's test that two models are correct equally often on the same rows.

    With b and c the rows that only the first or only the second predicts correctly, b ~ Binomial(b
    + c, ½) under the null. Exact: min(1, 2 P(X ≤ min(b, c))). ``mid`` subtracts P(X = min(b, c)),
    and half of it from 1 where b = c, which is closer to the level (Fagerland, Lydersen and Laake
    2013). No discordant row: 1. It treats rows as independent: with groups, prefer
    ``paired_bootstrap``.
    """
    from scipy.special import bdtr

    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    least, total = min(only_first, only_second), only_first + only_second
    if total == 0:
        return 1.0
    exact = min(1.0, 2 * float(bdtr(least, total, 0.5)))
    if not mid:
        return exact
    # Exact in whole numbers, which have thousands of bits for thousands of rows.
    point: float
    if total < 1000:
        point = math.comb(total, least) / 2**total
    else:
        log = math.lgamma(total + 1) - math.lgamma(least + 1) - math.lgamma(total - least + 1)
        point = math.exp(log - total * math.log(2))
    # Both tails have the point in the middle, which counts half.
    if only_first == only_second:
        return 1 - point / 2
    return max(0.0, 2 * float(bdtr(least, total, 0.5)) - point)


def sign_flip_p_value(sums: Ints | Floats) -> float:
    """The exact two-sided p-value that each of the ``sums`` [G] is as often above as below 0: the
    share of all 2^G choices of their signs with a total as far from 0 (Fisher 1935).

    ``sums`` are the differences of rows, −1, 0 or 1, or their totals over groups. For rows this is
    McNemar's exact test. With m sums that are not 0 it is at least 2^(1 − m); without one it is 1.
    """
    sizes = np.abs(sums[sums != 0]).astype(np.int64)
    # The probability of each total, at the place total + Σ sizes.
    shares = np.ones(1)
    for size in sizes.tolist():
        wider = np.zeros(len(shares) + 2 * size)
        wider[: len(shares)] += shares / 2
        wider[2 * size :] += shares / 2
        shares = wider
    totals = np.arange(len(shares)) - int(sizes.sum())
    return min(1.0, float(shares[np.abs(totals) >= abs(int(sums.sum()))].sum()))


def newcombe(first: Bools, second: Bools, level: float = 0.95) -> tuple[float, float]:
    """An interval of rate(first) − rate(second) over the same rows (Newcombe 1998, method 10).

    Wilson's limits of the two rates, joined with the correlation φ of the 2×2 table (with the
    continuity correction of its numerator when positive). It keeps its level at small n and at
    rates near 0 and 1, where a bootstrap has no width. No rows: (−1, 1).
    """
    n = len(first)
    if n == 0:
        return -1.0, 1.0
    rate_1, rate_2 = float(np.mean(first)), float(np.mean(second))
    low_1, high_1 = wilson(float(np.sum(first)), n, level)
    low_2, high_2 = wilson(float(np.sum(second)), n, level)
    both, neither = int(np.sum(first & second)), int(np.sum(~first & ~second))
    only_1, only_2 = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    margins = (both + only_1) * (only_2 + neither) * (both + only_2) * (only_1 + neither)
    numerator = float(both * neither - only_1 * only_2)
    if numerator > 0:
        # The correction may weaken a correlation, not change its sign.
        numerator = max(numerator - n / 2, 0.0)
    # Newcombe's rule where φ is undefined.
    phi = numerator / math.sqrt(margins) if margins else 0.0
    below, above = rate_1 - low_1, high_1 - rate_1
    below_2, above_2 = rate_2 - low_2, high_2 - rate_2
    down = math.sqrt(max(0.0, below**2 - 2 * phi * below * above_2 + above_2**2))
    up = math.sqrt(max(0.0, above**2 - 2 * phi * above * below_2 + below_2**2))
    return max(-1.0, rate_1 - rate_2 - down), min(1.0, rate_1 - rate_2 + up)


def paired_t(
    first: Floats, second: Floats, level: float = 0.95, groups: Ints | None = None
) -> Difference:
    """mean(first − second) over the same rows [n], ± t_{n−1} · sd ÷ √n (Student 1908).

    With ``groups`` [n], whole numbers, n is the number of groups (``by_groups``), and t has
    ``intervals.group_freedom`` degrees of freedom.

    ``above`` is the probability that t with n − 1 degrees of freedom lies below mean ÷ se: the
    share of a flat posterior above 0, and 1 − the one-sided p-value of "not above 0". No rows, or
    a value that is not finite: NaN throughout. One row: no interval. All differences equal: an
    interval without width.
    """
    gap: Floats = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    freedom: float = len(gap) - 1
    if groups is not None and len(gap):
        freedom = group_freedom(np.unique(groups, return_counts=True)[1])
        gap = by_groups(gap, groups)
    n = len(gap)
    if not n or not np.isfinite(gap).all():
        return Difference(math.nan, math.nan, math.nan, math.nan, n)
    mean = float(gap.mean())
    if n < 2:
        return Difference(mean, math.nan, math.nan, math.nan, n)
    return t_interval(mean, float(gap.std(ddof=1)) / math.sqrt(n), freedom, level, n)


def by_groups(rows: Floats, groups: Ints) -> Floats:
    """One number per group [G] instead of ``rows`` [n] that come in ``groups`` [n], with the mean
    of the rows; its error is their sd ÷ √G.

    It is mean + Σ (row − mean) ÷ (n ÷ G), summed over the rows of a group: a group counts by the
    sum of its rows (the linearised ratio of sums, Cochran 1977, 6.3). Rows that are each a group
    of their own are unchanged.
    """
    mean = float(rows.mean())
    _, codes = np.unique(groups, return_inverse=True)
    total = np.bincount(codes, rows - mean)
    return np.asarray(mean + total * len(total) / len(rows))


def welch(first: Floats, second: Floats, level: float = 0.95) -> Difference:
    """mean(first) − mean(second) of different rows [n], [m], with unequal variances (Welch 1947):
    ± t_ν · √(s₁²/n + s₂²/m), ν of Satterthwaite. ``n`` of the result is the smaller of the two.

    Fewer than two rows in a sample, or a value that is not finite: no interval.
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
    return t_interval(mean, math.sqrt(total), float(freedom), level, least)


def t_interval(mean: float, error: float, freedom: float, level: float, n: int) -> Difference:
    """``mean`` ± t · ``error`` with ``freedom`` degrees of freedom, for ``n`` rows."""
    from scipy.special import stdtr, stdtrit

    if not error:
        return Difference(mean, mean, mean, float(mean > 0) + 0.5 * (mean == 0), n)
    half = float(stdtrit(freedom, 0.5 + level / 2)) * error
    return Difference(mean, mean - half, mean + half, float(stdtr(freedom, mean / error)), n)


# A bound for the doubling; no data set has more rows.
MAX_ROWS = 10**12


def rows_needed_for_power(
    gap: Floats,
    margin: float,
    *,
    sides: Literal[1, 2] = 1,
    alpha: float = 0.05,
    power: float = 0.8,
    spread_confidence: float | None = None,
    groups: Ints | None = None,
) -> int | None:
    """The smallest number of rows with which a paired t test finds a mean difference of ``margin``.

    The smallest n with P(T > t_{n−1, 1−alpha/sides}) ≥ power, T noncentral t with n − 1 degrees of
    freedom and noncentrality √n · margin ÷ s, s the observed spread (Cohen 1988, chapter 2). For
    many rows this is ((z_{1−alpha/sides} + z_power) s ÷ margin)².

    Parameters
    ----------
    gap : [n] observed paired differences per row: losses, or correctness as −1, 0, 1.
    margin : the smallest mean difference that matters, above 0, in the unit of ``gap``.
    sides : 1 tests "is it worse?", 2 "do they differ?".
    spread_confidence : how confident the result shall be that s is not too small: s is replaced by
        its upper limit at that level, s √((n − 1) ÷ χ²_{1−spread_confidence}). By default s itself:
        then half of the results are too small, many by much if only a handful of rows was observed.
    groups : [n], whole numbers 0 … G−1; whole groups of the same mean size are then counted.

    Fewer than two rows (groups) or a difference that is not finite: None, because the spread is
    unknown. No spread at all: the fewest rows that can be tested, two.
    """
    from scipy.special import chdtri

    if not 0 < margin < math.inf:
        raise Defect("the margin of a sample size", "must be positive and finite", margin)
    if not 0 < alpha < power < 1:
        raise Defect("level and power", "need 0 < alpha < power < 1", (alpha, power))
    atoms = atom_contributions(np.asarray(gap, dtype=np.float64)[:, None], groups)[:, 0]
    if len(atoms) < 2 or not np.isfinite(atoms).all():
        return None
    spread = float(atoms.std(ddof=1))
    if spread_confidence is not None:
        spread *= math.sqrt((len(atoms) - 1) / float(chdtri(len(atoms) - 1, spread_confidence)))
    return math.ceil(_smallest_n(spread / margin, alpha / sides, power) * len(gap) / len(atoms))


def _smallest_n(ratio: float, tail: float, power: float) -> int:
    """The smallest n ≥ 2 with enough power, by doubling and bisection; power increases with n."""
    high = 2
    while _power(high, ratio, tail) < power:
        high *= 2
        if high > MAX_ROWS:
            rule = f"is too small for this spread: it needs over {MAX_ROWS:.0e} rows"
            raise Defect("the margin of a sample size", rule, 1 / ratio)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(middle, ratio, tail) >= power else (middle, high)
    return high


def _power(n: int, ratio: float, tail: float) -> float:
    from scipy.special import nctdtr, ndtr, ndtri, stdtrit

    if ratio == 0:
        return 1.0
    shift = math.sqrt(n) / ratio
    if n > 10_000:
        # The noncentral t loses digits there and equals the normal distribution to four places.
        return float(ndtr(shift + ndtri(tail)))
    return 1.0 - float(nctdtr(n - 1, shift, stdtrit(n - 1, 1 - tail))) if shift < 30 else 1.0
