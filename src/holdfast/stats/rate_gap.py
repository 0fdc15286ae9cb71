"""An interval of the difference of two rates over different rows."""

from __future__ import annotations

import math

from holdfast.stats.intervals import wilson


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
