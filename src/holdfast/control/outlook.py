"""Is more training worth it? The chance that what is left of a run still gains enough.

The validation losses of the last looks are drawn forward in a straight line, row by row, over the
learning that is left. A learning curve flattens as it falls, so the line promises more than the
run will keep: what it does not promise is not worth waiting for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats

WINDOW = 5
LEAST_LOOKS = 4


@dataclass(frozen=True, slots=True)
class Outlook:
    """``gain`` is how far the end of the run should lie below the best look so far, in the unit of
    the loss (negative: above it), ``error`` its standard error, ``chance`` the probability that it
    is at least the gain that was asked for; NaN where it cannot be told."""

    gain: float
    error: float
    chance: float


UNKNOWN = Outlook(math.nan, math.nan, math.nan)


def outlook(losses: Floats, learnt: Floats, end: float, worth: float) -> Outlook:
    """The chance of a further gain of at least ``worth`` by the end of the run.

    Parameters
    ----------
    losses : [n, looks] validation losses of the same rows, oldest look first.
    learnt : [looks] the learning done by each look, Σ rate over its steps; rising.
    end : the learning done when the run is over, at least ``learnt[-1]``.
    worth : the least gain of the mean loss that is worth the rest of the run.

    Notes
    -----
    The line is the least-squares one through the last five looks, ŷ(e) = Σ c_j y_j with
    c_j = 1/m + (e − x̄)(x_j − x̄) ÷ S_xx, so the promised gain of row i is
    g_i = y_i,best − Σ c_j y_ij, its mean over rows the gain. Two kinds of noise are in it: the rows
    are a sample, s² = var(g_i) ÷ n; and the weights wander from look to look, which the residuals
    of the mean losses show, r² (1/m + (e − x̄)² ÷ S_xx), r² with m − 2 degrees of freedom. The
    chance is that of a t law with m − 2 degrees of freedom, the fewer of the two. Fewer than four
    looks, fewer than two rows, a loss that is not a number, or no learning between the looks: NaN.
    """
    from scipy.special import stdtr

    n, looks = losses.shape
    if looks < LEAST_LOOKS or n < 2 or not np.isfinite(losses).all():
        return UNKNOWN
    recent, x = losses[:, -WINDOW:], np.asarray(learnt[-WINDOW:], dtype=np.float64)
    spread = float(((x - x.mean()) ** 2).sum())
    if not spread > 0:
        return UNKNOWN
    points = len(x)
    weights = 1 / points + (end - x.mean()) * (x - x.mean()) / spread
    best = losses[:, int(np.argmin(losses.mean(axis=0)))]
    promised = best - recent @ weights
    means = recent.mean(axis=0)
    slope = float(((x - x.mean()) * means).sum()) / spread
    residuals = means - means.mean() - slope * (x - x.mean())
    wander = float((residuals**2).sum()) / (points - 2)
    variance = float(promised.var(ddof=1)) / n
    variance += wander * (1 / points + (end - x.mean()) ** 2 / spread)
    gain, error = float(promised.mean()), math.sqrt(variance)
    if error == 0:
        return Outlook(gain, 0.0, float(gain >= worth))
    return Outlook(gain, error, 1 - float(stdtr(points - 2, (worth - gain) / error)))
