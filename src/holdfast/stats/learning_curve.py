"""What twice the rows would bring, by the scores with a quarter, half and all of them.

The gains of two doublings are seen: d₁ from a quarter to half, d₂ from half to all of the rows,
each a mean over the same held-out rows. A learning curve in the form a + b · n^(−c) (1712.00409)
has gains whose ratio r = 2^(−c) is the same for every doubling. With d = (d₁, d₂), its covariance
Σ, and A = (1 ÷ r, 1), generalised least squares gives the gain g₂ from half to all, and g₃ of twice
the rows:

    ĝ₂ = A Σ⁻¹ d ÷ (A Σ⁻¹ Aᵀ),   g₂ ~ t(ĝ₂, κ ÷ (A Σ⁻¹ Aᵀ)),   log r ~ N(log r₀, s²),   g₃ = r g₂

Student's t has the ``group_freedom`` of the rows' groups. r₀ and s are those of other data sets,
because one curve says little of them; κ widens Σ for the training rows, which are one draw. The
interval has the quantiles of g₃, and ĝ₃ = r₀ ĝ₂.

The form has r < 1. Where d₂ is significantly larger than d₁ the curve gets steeper, for example
because fits on few rows end before they have learnt; then nothing is foretold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from holdfast.core.records import Estimate, Floats, Ints
from holdfast.stats.intervals import group_freedom
from holdfast.stats.paired_tests import by_groups

# Chosen with linear probes on other draws of the sets of benchmarks/learning_curves.py.
RATIO, RATIO_SPREAD, WIDENED = 0.6, 0.5, 3.0
# Four groups do not show how the two gains vary together.
FEWEST_UNITS = 5
STEEPER = "the second doubling of the rows gained more than the first"
# Nodes of the Gauss-Hermite rule over log r.
NODES = 31


@dataclass(frozen=True, slots=True)
class Doubling:
    """The ``gain`` of twice the rows (above 0: better), and the gains ``seen`` of the two doublings
    before."""

    gain: Estimate
    seen: tuple[float, float]

    @property
    def is_told(self) -> bool:
        """Whether the sign of the gain is known: the interval excludes 0."""
        low, high = self.gain.low, self.gain.high
        return low is not None and high is not None and (low > 0 or high < 0)


def foretell(scores: Floats, groups: Ints, level: float = 0.95) -> Doubling:
    """The gain of twice the rows, by the ``scores`` [3, m] (higher is better) of m held-out rows in
    ``groups`` [m] with a quarter, half and all of the training rows.

    With fewer than ``FEWEST_UNITS`` groups, or no difference between the scores of any row, there
    is no interval; where the second gain is significantly larger than the first, no gain either.
    """
    first, second = scores[1] - scores[0], scores[2] - scores[1]
    seen = float(first.mean()), float(second.mean())
    spread = np.stack([by_groups(one, groups) for one in (first, second)])
    n = spread.shape[1]
    covariance = np.cov(spread) / n if n >= FEWEST_UNITS else np.zeros((2, 2))
    if np.linalg.matrix_rank(covariance) < 2:
        return Doubling(
            Estimate(RATIO * seen[1], why="too few rows or groups for an interval"), seen
        )
    freedom = group_freedom(np.unique(groups, return_counts=True)[1])
    contrast = np.array([-1.0, 1.0])
    steeper = float(contrast @ seen) / math.sqrt(WIDENED * float(contrast @ covariance @ contrast))
    if steeper > stats.t.ppf((1 + level) / 2, freedom):
        return Doubling(Estimate(None, why=STEEPER), seen)
    weights, precision = np.array([1 / RATIO, 1.0]), np.linalg.inv(covariance)
    certain = float(weights @ precision @ weights)
    half = float(weights @ precision @ np.array(seen)) / certain
    error = math.sqrt(WIDENED / certain)
    low, high = (
        _quantile(_distribution(half, error, freedom), p, 100 * (abs(half) + error))
        for p in ((1 - level) / 2, (1 + level) / 2)
    )
    return Doubling(Estimate(RATIO * half, low, high, level), seen)


def _distribution(half: float, error: float, freedom: float) -> Callable[[float], float]:
    """P(r g₂ ≤ x) for (g₂ − ``half``) ÷ ``error`` ~ t with ``freedom`` degrees of freedom."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    ratios, shares = RATIO * np.exp(RATIO_SPREAD * nodes), weights / weights.sum()
    return lambda x: float(shares @ stats.t.cdf((x / ratios - half) / error, freedom))


def _quantile(distribution: Callable[[float], float], p: float, reach: float) -> float:
    return float(optimize.brentq(lambda x: distribution(x) - p, -reach, reach))
