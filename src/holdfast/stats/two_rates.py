"""Two rates of different rows: is one above the other, are they the same, and how many rows would
tell?

The sibling for the same rows twice is ``paired.mcnemar``; ``rate_gap`` has the interval.
"""

from __future__ import annotations

import math

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats
from holdfast.stats.intervals import normal_quantile


def fisher_above(hits_1: int, n_1: int, hits_2: int, n_2: int) -> float:
    """The one-sided p-value of Fisher's exact test (1935) that the first rate is not above the
    second: P(X ≥ hits_1), X hypergeometric. No rows on a side: 1."""
    if min(hits_1, hits_2) < 0 or hits_1 > n_1 or hits_2 > n_2:
        raise Defect("two rates", "need 0 ≤ hits ≤ n", (hits_1, n_1, hits_2, n_2))
    if not n_1 or not n_2:
        return 1.0
    hits = hits_1 + hits_2
    # The first may have no more than all hits, and no fewer than the second leaves over.
    k = np.arange(max(hits_1, hits - n_2), min(n_1, hits) + 1, dtype=np.float64)
    whole = _log_choose(n_1 + n_2, np.array([float(hits)]))
    terms = np.exp(_log_choose(n_1, k) + _log_choose(n_2, hits - k) - whole)
    return min(1.0, float(terms.sum()))


def fisher(hits_1: int, n_1: int, hits_2: int, n_2: int) -> float:
    """The two-sided p-value of "both rates are the same": the smaller of the two one-sided ones of
    Fisher's exact test, doubled (the central test; Fay 2010), at most 1."""
    above = fisher_above(hits_1, n_1, hits_2, n_2), fisher_above(hits_2, n_2, hits_1, n_1)
    return min(1.0, 2 * min(above))


def _log_choose(n: int, k: Floats) -> Floats:
    from scipy.special import gammaln

    found: Floats = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return found


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
