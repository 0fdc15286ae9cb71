"""A rate on a stream (how often do two models differ, how many users fell into an arm): evidence
and limits that stay valid after every row, from counts alone.

Siblings: ``streams`` for means of bounded values, ``intervals.wilson`` for one look at a fixed
number of rows, ``pair_stream`` for which of two models wins.
"""

from __future__ import annotations

import math

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints
from holdfast.stats.intervals import last_refused

# Beta(½, ½): near the narrowest at every rate, and never wider than the whole.
JEFFREYS = (0.5, 0.5)
STEPS = 60


def rate_evidence(
    hits: Ints, rows: Ints, rate: float | Floats, prior: tuple[float, float] = JEFFREYS
) -> Floats:
    """The log e-value [rows] of "the rate is not ``rate``" after ``hits`` of ``rows``, both [rows].

    The likelihood ratio averaged over rates from Beta(a, b): B(h + a, n − h + b) ÷ (B(a, b) rate^h
    (1 − rate)^(n − h)) (Robbins 1970; of several arms Lindon and Malek, 2011.03567). At the true
    rate it is a martingale that begins at 1, so it reaches 1/α with probability α at most, however
    often one looks. ``prior`` (a, b) is what rates are hoped for; any is valid.
    """
    from scipy.special import betaln, xlog1py, xlogy

    if not np.all((np.asarray(rate) >= 0) & (np.asarray(rate) <= 1)):
        raise Defect("the rate of a stream", "must lie within [0, 1]", rate)
    h, n = np.asarray(hits, dtype=float), np.asarray(rows, dtype=float)
    a, b = prior
    with np.errstate(divide="ignore"):
        fair = xlogy(h, rate) + xlog1py(n - h, -np.asarray(rate, dtype=float))
    return np.asarray(betaln(h + a, n - h + b) - betaln(a, b) - fair)


def rate_limits(hits: int, rows: int, alpha: float = 0.05) -> tuple[float, float]:
    """The rates that ``rate_evidence`` has not refused: they hold the true one at all rows at once
    with probability 1 − ``alpha``. Without rows (0, 1)."""
    if not 0 < alpha < 1:
        raise Defect("the error of a stream", "must lie strictly between 0 and 1", alpha)
    if not 0 <= hits <= rows:
        raise Defect("the hits of a stream", f"must lie within 0 and {rows}", hits)
    if not rows:
        return 0.0, 1.0
    seen, need = hits / rows, math.log(1 / alpha)

    def refused(rate: float) -> bool:
        return float(rate_evidence(np.array(hits), np.array(rows), rate)) >= need

    def edge(outside: float) -> float:
        # The evidence falls towards what was seen from either side.
        return last_refused(refused, outside, seen, STEPS) if refused(outside) else outside

    return edge(0.0), edge(1.0)
