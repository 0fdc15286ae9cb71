"""How large are many small gaps on average, when each is measured with noise?

The mean of |measured gap| is biased upwards, since noise never cancels in it, and so is every
bootstrap of it. A two-level normal model takes the noise out.
"""

from __future__ import annotations

import numpy as np

from holdfast.core.records import Floats

GRID = 200


def mean_absolute_gap(
    gaps: Floats, errors: Floats, shares: Floats, *, seed: np.random.Generator,
    level: float = 0.95, draws: int = 4000,
) -> tuple[float, float]:  # fmt: skip
    """An interval of Σ_b share_b |γ_b| from measured gaps g_b ~ N(γ_b, error_b²) [bins].

    The model is γ_b ~ N(μ, τ²), with a flat prior on μ and a half-Cauchy prior on τ whose scale is
    half of the mean error (Gelman et al., Bayesian Data Analysis, sections 5.4 and 5.7): τ from
    its marginal posterior on a grid up to four times the largest gap or error, then μ, then each
    γ_b. The limits are quantiles of the draws; the lower one is 0 where χ² = Σ (g_b ÷ error_b)²
    cannot rule out that every gap is 0, which draws of |γ_b| never reach.
    """
    from scipy.special import chdtrc

    end = 4 * float(max(np.abs(gaps).max(), errors.max()))
    spread = np.linspace(0.0, end, GRID)
    total = spread[:, None] ** 2 + errors**2
    precision = (1 / total).sum(axis=1)
    centre = (gaps / total).sum(axis=1) / precision
    misfit = (np.log(total) + (gaps - centre[:, None]) ** 2 / total).sum(axis=1)
    scale = 0.5 * float(errors.mean())
    log_weight = -0.5 * (misfit + np.log(precision)) - np.log1p((spread / scale) ** 2)
    weight = np.exp(log_weight - log_weight.max())
    pick = seed.choice(GRID, size=draws, p=weight / weight.sum())
    mean = centre[pick] + seed.standard_normal(draws) / np.sqrt(precision[pick])
    kept = spread[pick, None] ** 2 / total[pick]
    middle = mean[:, None] + kept * (gaps - mean[:, None])
    noise = seed.standard_normal(middle.shape) * np.sqrt(kept) * errors
    drawn = np.abs(middle + noise) @ shares
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    unseen = float(chdtrc(len(gaps), float(((gaps / errors) ** 2).sum()))) > (1 - level) / 2
    return 0.0 if unseen else float(low), float(high)
