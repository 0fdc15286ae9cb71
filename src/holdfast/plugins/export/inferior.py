"""Whether a coarser file is no worse than the model by a point, on the same rows.

The difference is tested on one and a half imaginary rows more, which the coarser file alone gets
wrong: without them, rows that all agree would leave no spread, and three of them would prove
anything; with one, a rule that is discrete passes its level at some numbers of rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints

MARGIN = 0.01
LEVEL = 0.95
IMAGINARY = 1.5
# How often a file that is worse by exactly the margin is kept: the greatest share among 84 cells of
# rows and changed answers, 20,000 simulated validation sets each (``benchmarks/export.py``).
FALSE_KEPT = 0.044
# Scores that lie no further apart are of one answer: beyond what a file may differ by at most.
SAME = 2e-4
# Rows beyond which nobody is told to go.
MOST = 10**7


@dataclass(frozen=True, slots=True)
class Inferiority:
    """How much worse on average, ``value``, with ``high``, the one-sided upper limit of it, over
    ``n`` rows of which ``changed`` had another score; ``more`` is how many rows more would settle
    it if they are like these: ``None`` where it is settled, or none would."""

    value: float
    high: float
    n: int
    changed: int
    more: int | None = None

    @property
    def held(self) -> bool:
        """Whether it is no worse by the margin."""
        return self.high < MARGIN


def inferiority(base: Floats, other: Floats, *, groups: Ints | None = None) -> Inferiority:
    """mean(base − other) of per-row scores in [0, 1], higher is better, [n] each, with its
    one-sided 95 % limit by Student's t over rows, or over ``groups`` [n] (whole numbers). No rows:
    the value is NaN and the limit infinite."""
    gap = np.asarray(base, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    n = len(gap)
    if not n:
        return Inferiority(math.nan, math.inf, 0, 0)
    codes = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(codes).astype(np.float64)
    totals = np.bincount(codes, weights=gap)
    mean, size = float(gap.mean()), n / len(sizes)
    rest = float(((totals - mean * sizes) ** 2).sum()) / size**2
    high = _limit(mean, rest, len(sizes))
    # Of numbers the last digits always differ.
    changed = int((np.abs(gap) > SAME).sum())
    more = None
    if high >= MARGIN:
        units = _enough(mean, rest / len(sizes), len(sizes))
        more = None if units is None else math.ceil((units - len(sizes)) * size)
    return Inferiority(mean, high, n, changed, more)


def _limit(mean: float, rest: float, units: int) -> float:
    """The upper limit of a mean over ``units`` rows (or groups) with the sum ``rest`` of squared
    deviations from it, the imaginary rows joined to them."""
    from scipy.special import stdtrit

    total = units + IMAGINARY
    joined = (units * mean + IMAGINARY) / total
    squares = rest + units * (mean - joined) ** 2 + IMAGINARY * (1 - joined) ** 2
    return joined + float(stdtrit(total - 1, LEVEL)) * math.sqrt(squares / total / (total - 1))


def _enough(mean: float, variance: float, units: int) -> int | None:
    """The least number of units, to a fiftieth, with which the limit would fall below the margin if
    mean and variance stay; ``None`` where it never would."""
    if mean >= MARGIN:
        return None
    wanted = units
    while wanted < MOST:
        wanted = math.ceil(wanted * 1.02) + 1
        if _limit(mean, variance * wanted, wanted) < MARGIN:
            return wanted
    return None
