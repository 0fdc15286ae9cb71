"""Intervals of a rate: Wilson's score interval, its form for grouped rows, and Clopper–Pearson.

Siblings: ``wilson`` is the default of every rate in a report, close to its level on average;
``clopper_pearson`` never falls below its level and is wider; ``wilson_by_groups`` is Wilson with
the sample shrunk to its effective size where rows come in groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import Defect
from holdfast.core.records import Ints


def normal_quantile(level: float) -> float:
    """The two-sided normal quantile of ``level``, e.g. 1.96 at 0.95."""
    if not 0.0 < level < 1.0:
        raise Defect("the level of an interval", "must lie strictly between 0 and 1", level)
    return NormalDist().inv_cdf(0.5 + level / 2)


def wilson(
    successes: float, n: float, level: float = 0.95, *, quantile: float | None = None
) -> tuple[float, float]:
    """Wilson's score interval of a rate (Wilson 1927; Brown, Cai and DasGupta 2001).

    (p̂ + z²/2n ± z √(p̂(1−p̂)/n + z²/4n²)) ÷ (1 + z²/n), within [0, 1], the solutions of
    |p̂ − p| = z √(p(1−p)/n). ``n`` may be an effective size, so not a whole number; ``quantile``
    replaces z. ``n = 0`` gives (0, 1): nothing is known.
    """
    _check_rate(successes, n)
    if n == 0:
        return 0.0, 1.0
    z = normal_quantile(level) if quantile is None else quantile
    rate, z2n = successes / n, z * z / n
    centre = (rate + z2n / 2) / (1 + z2n)
    half = z * math.sqrt(rate * (1 - rate) / n + z2n / (4 * n)) / (1 + z2n)
    # Exactly 0 and 1 there by algebra; in floating point 1e-17 would be left.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a rate (Clopper and Pearson 1934), from quantiles of the beta law.

    It covers at least ``level`` of the time for every rate, at the price of width. ``n = 0``
    gives (0, 1).
    """
    from scipy.special import betaincinv

    _check_rate(successes, n)
    tail = (1 - level) / 2
    # The beta law with a parameter of 0 has no quantile.
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return low, high


def design_effect(hits: npt.NDArray[np.bool_], groups: Ints) -> float:
    """How many times larger the variance of a rate is because rows come in groups.

    The linearised variance of the ratio estimator, G/(G−1) Σ_g (Σ_{i∈g} (x_i − p̂))² ÷ n²,
    over p̂(1−p̂)/n (Kish 1965). ``groups`` [n] are whole numbers 0 … G−1. Never below 1 here, a
    reading on the safe side. All rows alike: the variance shows nothing, so the rows of a group
    are taken as copies of each other, Σ m_g² ÷ n. One group: NaN.
    """
    sizes = np.bincount(groups)
    # A number that no row bears is no group.
    sizes, n = sizes[sizes > 0], len(groups)
    if len(sizes) < 2:
        return math.nan
    rate = float(np.mean(hits))
    if rate in (0.0, 1.0):
        return float((sizes.astype(float) ** 2).sum() / n)
    residuals = np.bincount(groups, weights=hits - rate)
    variance = len(sizes) / (len(sizes) - 1) * float((residuals**2).sum()) / n**2
    return max(1.0, variance / (rate * (1 - rate) / n))


def wilson_by_groups(
    hits: npt.NDArray[np.bool_], groups: Ints, level: float = 0.95
) -> tuple[float, float]:
    """Wilson's interval of a rate of rows that come in groups (Dean and Pagano 2015).

    The sample is shrunk to n ÷ design effect, and z is replaced by the t quantile with G − 1
    degrees of freedom. Fewer than two groups: (NaN, NaN), for the rows say nothing about how
    groups differ.
    """
    from scipy.special import stdtrit

    effect = design_effect(hits, groups)
    if math.isnan(effect):
        return math.nan, math.nan
    # Groups that have rows here; numbers may be those of a larger table.
    freedom = len(np.unique(groups)) - 1
    effective = len(hits) / effect
    quantile = float(stdtrit(freedom, 0.5 + level / 2))
    return wilson(float(np.mean(hits)) * effective, effective, level, quantile=quantile)


def last_refused(
    refused: Callable[[float], bool], outside: float, inside: float, halvings: int
) -> float:
    """The value nearest to ``inside`` that is still ``refused``, by so many halvings of the way
    from ``outside``, which is: a test turned round into a limit."""
    for _ in range(halvings):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if refused(middle) else (outside, middle)
    return outside


def _check_rate(successes: float, n: float) -> None:
    # An effective count of successes is rate × n, which may round to a hair above n.
    if n < 0 or successes < 0 or successes > n * (1 + 1e-12):
        raise Defect("a rate", "needs 0 ≤ successes ≤ n", (successes, n))
