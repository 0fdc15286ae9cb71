"""What twice the rows would bring, by the scores with a quarter, half and all of them.

The gains of two doublings are seen: d₁ from a quarter to half, d₂ from half to all of the rows,
each a mean over the same held-out rows. A learning curve in the form a + b · n^(−c) (1712.00409)
has gains whose ratio r = 2^(−c) is the same for every doubling; here the next one, r′, is only
similar. With d = (d₁, d₂), its covariance Σ, A = (1 ÷ r, 1), P = (κ Σ)⁻¹, and the gain g₂ from half
to all of the rows:

    log r ~ N(log r₀, s²),   log r′ ~ N(½ (log r₀ + log r), s²),   g₃ = r′ g₂ of twice the rows
    ĝ₂ = A P d ÷ A P Aᵀ,   χ² = d P d − ĝ₂² A P Aᵀ,   g₂ given r ~ t_ν(ĝ₂, 1 ÷ A P Aᵀ)
    p(r given d) ∝ p(r) (A P Aᵀ)^(−½) (1 + χ² ÷ ν)^(−(ν+1)/2)

That is the posterior for a flat prior of g₂, with Student's t of the ``group_freedom`` ν of the
rows' groups. r₀ and s are those of other data sets, because one curve says little of them; κ widens
Σ for the training rows, which are one draw. The estimate is the median of g₃, the interval has its
quantiles. No score passes the best possible one: the estimate ends there from the measured score,
the interval from the worse end of that score's own interval.

The form has r < 1. Where d₂ is significantly larger than d₁ the curve gets steeper, for example
because fits on few rows end before they have learnt; then nothing is foretold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from holdfast.core.records import Estimate, Floats, Ints
from holdfast.stats.intervals import group_freedom
from holdfast.stats.paired_tests import by_groups

# The width was chosen with linear probes on other draws of the sets of
# benchmarks/learning_curves.py; the ratio and its spread on ten curves of fine-tuned models of five
# sets of benchmarks/learning_curve_fits.py, whose loss falls faster at first.
RATIO, RATIO_SPREAD, WIDENED = 0.5, 0.5, 3.0
# Four groups do not show how the two gains vary together.
FEWEST_UNITS = 5
STEEPER = "the second doubling of the rows gained more than the first"
# Points of the grid on each axis, from −4 to 4 standard deviations.
NODES = 41


def is_told(gain: Estimate) -> bool:
    """Whether the sign of the gain is known: the interval excludes 0."""
    return gain.low is not None and gain.high is not None and (gain.low > 0 or gain.high < 0)


def room_above(score: Estimate, best: float) -> tuple[float, float]:
    """The largest possible gain: from the measured ``score`` to the ``best`` possible one, and from
    the worse end of its interval (without an interval: infinite)."""
    if score.value is None or score.low is None or score.high is None:
        return (math.inf if score.value is None else abs(best - score.value)), math.inf
    return abs(best - score.value), max(abs(best - score.low), abs(best - score.high))


@dataclass(frozen=True, slots=True, eq=False)
class Doublings:
    """The gains of two doublings of the rows: their means ``seen`` [2], the covariance of these
    [2, 2], and the ``freedom`` that it was estimated with."""

    seen: Floats
    covariance: Floats
    freedom: float

    @classmethod
    def from_scores(cls, scores: Floats, groups: Ints) -> Doublings:
        """Of ``scores`` [3, m] (higher is better) of m held-out rows in ``groups`` [m] with a
        quarter, half and all of the training rows. With fewer than ``FEWEST_UNITS`` groups the
        covariance is 0."""
        gains = np.diff(scores, axis=0)
        spread = np.stack([by_groups(one, groups) for one in gains])
        n = spread.shape[1]
        covariance = np.cov(spread) / n if n >= FEWEST_UNITS else np.zeros((2, 2))
        freedom = group_freedom(np.unique(groups, return_counts=True)[1])
        return cls(gains.mean(axis=1), covariance, freedom)

    def foretell(
        self, level: float = 0.95, room: tuple[float, float] = (math.inf, math.inf)
    ) -> Estimate:
        """The gain of twice the rows (above 0: better). ``room`` is that of ``room_above``.

        Without a covariance of rank 2 there is no interval; where the second gain is significantly
        larger than the first, no gain either.
        """
        if np.linalg.matrix_rank(self.covariance) < 2:
            value = min(RATIO * float(self.seen[1]), room[0])
            return Estimate(value, why="too few rows or groups for an interval")
        contrast = np.array([-1.0, 1.0])
        error = math.sqrt(WIDENED * float(contrast @ self.covariance @ contrast))
        if contrast @ self.seen > error * stats.t.ppf((1 + level) / 2, self.freedom):
            return Estimate(None, why=STEEPER)
        shares = np.array([(1 - level) / 2, 0.5, (1 + level) / 2])
        low, value, high = self._quantiles(shares)
        value = min(value, room[0])
        return Estimate(value, min(low, value), min(high, room[1]), level)

    def _quantiles(self, shares: Floats) -> list[float]:
        """Of g₃, by a grid over log r, log r′ and g₂."""
        seen, freedom = self.seen, self.freedom
        nodes = np.linspace(-4, 4, NODES)
        prior = stats.norm.pdf(nodes)
        ratios = RATIO * np.exp(RATIO_SPREAD * nodes)
        design = np.stack([1 / ratios, np.ones(NODES)], axis=1)
        precision = np.linalg.inv(WIDENED * self.covariance)
        certain = np.einsum("ra,ab,rb->r", design, precision, design)
        halves = design @ precision @ seen / certain
        misfit = seen @ precision @ seen - halves**2 * certain
        posterior = prior * certain**-0.5 * (1 + misfit / freedom) ** (-(freedom + 1) / 2)
        errors = np.outer(certain**-0.5, stats.t.ppf(stats.norm.cdf(nodes), freedom))
        following = np.outer(np.sqrt(RATIO * ratios), np.exp(RATIO_SPREAD * nodes))
        gains = following[:, :, None] * (halves[:, None] + errors)[:, None, :]
        weights = posterior[:, None, None] * prior[:, None] * prior
        order = np.argsort(gains, axis=None)
        ordered = weights.ravel()[order]
        below = (np.cumsum(ordered) - ordered / 2) / ordered.sum()
        return [float(one) for one in np.interp(shares, below, gains.ravel()[order])]
