"""Does a short series rise or fall? The Theil–Sen slope and the Mann–Kendall test."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats


@dataclass(frozen=True, slots=True)
class Trend:
    """A slope per unit of x with its interval, the p-value of "no trend", and the points used."""

    slope: float
    low: float
    high: float
    p_value: float
    n: int


def trend(x: Floats, y: Floats, level: float = 0.95) -> Trend:
    """The median of all pairwise slopes (Sen 1968) and Kendall's test of x and y (Mann 1945),
    exact for short series without ties.

    Neither assumes a straight line or normal noise. Both read the points as independent, which
    the points of one training run are not: a hint beside a paired comparison of rows, not a
    substitute. Points that are not finite are left out; fewer than three, or a single x: NaN with
    p = 1.
    """
    from scipy.stats import kendalltau, theilslopes

    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    kept = np.isfinite(x) & np.isfinite(y)
    x, y = x[kept], y[kept]
    if len(x) < 3 or np.ptp(x) == 0:
        return Trend(math.nan, math.nan, math.nan, 1.0, len(x))
    if np.ptp(y) == 0:
        return Trend(0.0, 0.0, 0.0, 1.0, len(x))
    slope = theilslopes(y, x, alpha=level)
    p_value = float(kendalltau(x, y).pvalue)
    return Trend(float(slope[0]), float(slope[2]), float(slope[3]), p_value, len(x))
