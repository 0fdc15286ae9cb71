"""How many rows would settle a comparison that these rows leave open?"""

from __future__ import annotations

import math

import numpy as np

from holdfast.core.records import Floats, Ints

CHANCE = 0.8
# Of the normal law: 2.5 % for better and worse, 5 % for each side of "equivalent".
WIN, NEAR = 1.959964, 1.644854
STEP = 1.01
MOST = 10**9


def rows_that_settle(gap: Floats, margin: float, codes: Ints | None = None) -> int | None:
    """The smallest number of rows in all with which the same tests reach a verdict (better, worse
    or equivalent within ``margin``) with a chance of 80 %, given what the paired differences
    ``gap`` [n] show.

    What the rows to come will show is not known: their mean is N(d, v ÷ n + v ÷ k) for k more rows,
    d and v being the mean and variance of those that are there (assurance: O'Hagan, Stevens and
    Campbell 2005), so the mean of all N = n + k is N(d, v k ÷ (n N)). It settles where it lies
    beyond 1.96 standard errors or within the margin by 1.64 of them; with N = 13 v ÷ margin² one of
    the two is always so. For right and wrong answers v has one more row for each model that it
    alone has right: none seen is not none there. ``codes`` [n] are groups of rows, which count as
    whole groups of the present mean size. ``None`` for no rows, under two groups or rows with other
    numbers, without spread, and above a billion.
    """
    from scipy.special import ndtr

    found = np.asarray(gap, dtype=np.float64)
    spread, size = found, 1.0
    if codes is not None:
        size = len(found) / (int(codes.max(initial=-1)) + 1)
        spread = np.bincount(codes, found - found.mean()) / size + found.mean()
    n, signs = len(spread), codes is None and np.isin(found, (-1.0, 0.0, 1.0)).all()
    if n < 2 and not (signs and n):
        return None
    value = float(spread.mean())
    if signs:
        # At one row that one model alone has right, value² would be more than that share.
        discordant = (float((found != 0).sum()) + 2) / (n + 2)
        variance = max(discordant - value**2, discordant / 2)
    else:
        variance = float(spread.var(ddof=1))
    if not variance:
        return None
    # A margin whose square is no number any more takes more rows than anybody has.
    top = (WIN + NEAR) ** 2 * variance / max(margin**2, 1e-30)
    most = max(n * STEP, top * STEP)
    totals = n * STEP ** np.arange(1, math.ceil(math.log(most / n) / math.log(STEP)) + 2)
    error = np.sqrt(variance / totals)
    wide = np.sqrt(variance * (totals - n) / (n * totals))
    beyond, within = WIN * error, margin - NEAR * error

    def below(limit: Floats) -> Floats:
        return np.asarray(ndtr((limit - value) / wide))

    settled = 1 - below(beyond) + below(-beyond)
    settled += np.where(within > 0, below(np.abs(within)) - below(-np.abs(within)), 0.0)
    enough = (settled >= CHANCE) | (within >= beyond)
    rows = math.ceil(float(totals[np.argmax(enough)]) * size)
    return rows if enough.any() and rows <= MOST else None
