"""Two rates of different rows: is one above the other, are they the same, and how many rows would
tell?

The sibling for the same rows twice is ``paired.mcnemar``; ``rate_gap`` has the interval.

The difference of two rates over different rows: its interval, and how likely it is large.

Two rates over the same rows against a margin: Tango's score test and its interval.

Siblings: ``paired.mcnemar`` is the same question at a margin of 0, exactly; ``paired.newcombe`` an
interval in closed form, made for being right on average, where this one is made for a test that
may not err too often.
"""

from __future__ import annotations

import math

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats
from holdfast.stats.intervals import last_refused, normal_quantile, wilson


def fisher_above(hits_1: int, n_1: int, hits_2: int, n_2: int) -> float:
    """The one-sided p-value of Fisher's exact test (1935) that the first rate is not above the
    second: P(X ≥ hits_1), X hypergeometric. No rows on a side: 1."""
    from scipy.special import gammaln

    if min(hits_1, hits_2) < 0 or hits_1 > n_1 or hits_2 > n_2:
        raise Defect("two rates", "need 0 ≤ hits ≤ n", (hits_1, n_1, hits_2, n_2))
    if not n_1 or not n_2:
        return 1.0
    hits = hits_1 + hits_2
    # The first may have no more than all hits, and no fewer than the second leaves over.
    k = np.arange(max(hits_1, hits - n_2), min(n_1, hits) + 1, dtype=np.float64)

    def log_choose(n: int, k: Floats) -> Floats:
        return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))

    whole = log_choose(n_1 + n_2, np.array([float(hits)]))
    terms = np.exp(log_choose(n_1, k) + log_choose(n_2, hits - k) - whole)
    return min(1.0, float(terms.sum()))


def fisher(hits_1: int, n_1: int, hits_2: int, n_2: int) -> float:
    """The two-sided p-value of "both rates are the same": the smaller of the two one-sided ones of
    Fisher's exact test, doubled (the central test; Fay 2010), at most 1."""
    above = fisher_above(hits_1, n_1, hits_2, n_2), fisher_above(hits_2, n_2, hits_1, n_1)
    return min(1.0, 2 * min(above))


def rows_for_rates(
    rate_1: float, rate_2: float, share: float, alpha: float = 0.05, power: float = 0.8
) -> int:
    """Rows of both sides together with which a one-sided test at ``alpha`` tells ``rate_1`` from
    ``rate_2``, where a ``share`` in (0, 1) of them is the first's.

    (z_{1−α} √(p̄(1−p̄)(1/s + 1/(1−s))) + z_power √(p₁(1−p₁)/s + p₂(1−p₂)/(1−s)))² ÷ (p₁ − p₂)²,
    p̄ the rate of both together (Fleiss, Levin and Paik 2003, section 4.2).
    """
    if not 0 < share < 1 or rate_1 == rate_2:
        raise Defect("rows for two rates", "need two rates and a share in (0, 1)", (rate_1, share))
    # Two-sided quantiles: level 1 − 2α has z_{1−α}.
    z, w = normal_quantile(1 - 2 * alpha), normal_quantile(2 * power - 1)
    both = share * rate_1 + (1 - share) * rate_2
    null = math.sqrt(both * (1 - both) * (1 / share + 1 / (1 - share)))
    other = math.sqrt(rate_1 * (1 - rate_1) / share + rate_2 * (1 - rate_2) / (1 - share))
    return math.ceil(((z * null + w * other) / (rate_1 - rate_2)) ** 2)


# Quantiles of the first rate over which the probability of the second is averaged.
GRID = 1000


def rate_gap(
    hits_1: int, n_1: int, hits_2: int, n_2: int, level: float = 0.95
) -> tuple[float, float]:
    """An interval of p₁ − p₂ from independent samples (Newcombe 1998, method 10 of eleven).

    Wilson's limits l, u of each rate: p̂₁ − p̂₂ − √((p̂₁ − l₁)² + (u₂ − p̂₂)²) and
    p̂₁ − p̂₂ + √((u₁ − p̂₁)² + (p̂₂ − l₂)²). It keeps its level at rates near 0 and 1 and with few
    rows. The sibling for the same rows twice is ``paired.newcombe``. No rows on a side: (−1, 1).
    """
    if not n_1 or not n_2:
        return -1.0, 1.0
    rate_1, rate_2 = hits_1 / n_1, hits_2 / n_2
    low_1, high_1 = wilson(hits_1, n_1, level)
    low_2, high_2 = wilson(hits_2, n_2, level)
    down = math.hypot(rate_1 - low_1, high_2 - rate_2)
    up = math.hypot(high_1 - rate_1, rate_2 - low_2)
    return max(-1.0, rate_1 - rate_2 - down), min(1.0, rate_1 - rate_2 + up)


def gap_probability(hits_1: int, n_1: int, hits_2: int, n_2: int, line: float) -> float:
    """The probability that p₁ − p₂ is above ``line``, of independent samples, where before them
    every value of both rates is as likely (Bayes 1763; Laplace): the mean, over p₁ drawn from
    Beta(hits₁ + 1, n₁ − hits₁ + 1), of P(p₂ < p₁ − line), p₂ from Beta(hits₂ + 1, n₂ − hits₂ + 1).
    p₁ is taken at ``GRID`` quantiles; the error is below 0.001. No rows on a side are allowed."""
    from scipy.special import betainc, betaincinv

    first = betaincinv(hits_1 + 1, n_1 - hits_1 + 1, (np.arange(GRID) + 0.5) / GRID)
    second = betainc(hits_2 + 1, n_2 - hits_2 + 1, np.clip(first - line, 0.0, 1.0))
    return float(second.mean())


# Half a row against the claim. By enumeration of all tables (margins 1, 2 and 5 points, 100 to
# 3,000 rows, discordant shares from the margin to 25 %) the test at 5 % then errs in 4.8 % at most;
# without it in up to 6.0 %, a Wald test in up to 37 %.
HALF = 0.5
# Halvings of (−1, 1): one more than 52 would reach its end.
STEPS = 48


def not_below(only_first: int, only_second: int, n: int, margin: float) -> float:
    """The one-sided p-value of "the first is right at least ``margin`` more often than the second":
    small where it is shown to be less than that.

    With b and c the rows that only the first or only the second has right, z is
    (b + ½ − c − n m) ÷ √(n (2 q + m (1 − m))), q the most likely P(only the second) under the null
    (Tango 1998), and the answer Φ(z). The ½ is a correction for continuity, see ``HALF``.

    ``margin`` lies strictly between −1 and 1. Rows count as independent. No rows: 1.
    """
    from scipy.special import ndtr

    if not -1 < margin < 1:
        raise Defect("the margin of two rates", "must lie strictly between -1 and 1", margin)
    if not 0 <= only_first + only_second <= n:
        raise Defect("discordant rows", "are at most all rows", (only_first, only_second, n))
    if not n:
        return 1.0
    b, c = min(only_first + HALF, n), only_second
    gap = b - c - n * margin
    # The positive root of 2 n q² + half q − c m (1 − m) = 0.
    half = (2 * n - b + c) * margin - b - c
    root = math.sqrt(max(half * half + 8 * n * c * margin * (1 - margin), 0.0))
    likely = (root - half) / (4 * n)
    variance = n * (2 * likely + margin * (1 - margin))
    if variance <= 1e-12:
        # ±∞ where the variance under the null is 0.
        return float(ndtr(math.copysign(math.inf, gap) if gap else 0.0))
    return float(ndtr(gap / math.sqrt(variance)))


def tango(only_first: int, only_second: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The margins that neither one-sided test refuses at (1 − level) ÷ 2: an interval of
    rate(first) − rate(second) within [−1, 1]. No rows: (−1, 1)."""
    if not n:
        return -1.0, 1.0

    def limit(first: int, second: int) -> float:
        # The p-value falls as the margin rises.
        tail = (1 - level) / 2
        return last_refused(lambda m: not_below(first, second, n, m) <= tail, 1.0, -1.0, STEPS)

    return -limit(only_second, only_first), limit(only_first, only_second)
