"""Where does a short noisy series change its level?

Siblings: ``change_points`` cuts a series into levels and gives no error rate; ``strongest_change``
asks about one change and gives a p-value; ``trend`` asks about a slope. All three read the points
as independent around their level, which the points of one training run are not: hints beside a
paired comparison of rows, not substitutes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints

FEWEST = 8
# The median of |N(0, 1)|, so that its inverse makes a median absolute value a standard deviation.
MEDIAN_OF_NORMAL = 0.6744897501960817


@dataclass(frozen=True, slots=True)
class Change:
    """The strongest change of level: the position of its first point in the series as given, or
    None where no change can be placed; the mean after less the mean before; the p-value of "no
    change"; and the finite points used."""

    position: int | None
    size: float
    p_value: float
    n: int


def strongest_change(y: Floats, *, seed: np.random.Generator, resamples: int = 999) -> Change:
    """The place where a cut parts a series best, with a permutation p-value.

    The statistic is the largest |S_k| ÷ √(k (n − k) ÷ n) over cuts k, S the running sum of
    y − ȳ (CUSUM, standardised: the likelihood ratio of one change in mean); its null law is that
    of the shuffled series, p = (1 + draws at least as large) ÷ (1 + resamples). Searching for the
    cut is part of every draw, so it costs no error.

    Fewer than 8 finite points: p = 1 (of 7, even the best order cannot reach 5 %), with the place
    that parts them best; fewer than 2, or all equal: no place, size 0. NaN and infinities are left
    out. With ties the first of equal cuts is taken. An alternating trend or a slope is no change of
    level but can look like one.
    """
    found = np.asarray(y, dtype=np.float64)
    places = np.flatnonzero(np.isfinite(found))
    kept = found[places]
    n = len(kept)
    if n < 2 or np.ptp(kept) == 0:
        return Change(None, 0.0, 1.0, n)
    strength = _cusum(kept[None])[0]
    # The first of equals up to rounding.
    cut = int(np.argmax(strength >= strength.max() * (1 - 1e-9))) + 1
    size = float(kept[cut:].mean() - kept[:cut].mean())
    if n < FEWEST:
        return Change(int(places[cut]), size, 1.0, n)
    shuffled = seed.permuted(np.broadcast_to(kept, (resamples, n)), axis=1)
    # Draws that equal the series but for the order of a sum count as ties.
    as_large = int(np.sum(_cusum(shuffled).max(axis=1) >= strength.max() * (1 - 1e-9)))
    return Change(int(places[cut]), size, (1 + as_large) / (1 + resamples), n)


def change_points(
    y: Floats, *, penalty: float | None = None, least: int = 3, noise: float | None = None
) -> tuple[int, ...]:
    """The positions where a new level starts, by the best of all divisions.

    Minimises Σ over segments of Σ (y − mean)² ÷ noise² + penalty · changes, exactly, by dynamic
    programming over the last cut (optimal partitioning, Jackson and others 2005; what PELT
    computes) in O(n²) time and memory: for hundreds of points, not for hundreds of thousands.

    Parameters
    ----------
    penalty : what one change must gain; by default 3 log n (Yao's 1988 BIC has 2 log n for place
        and height; the third keeps flat short series quiet).
    least : points of the shortest segment. A single outlier of more than about seven times the
        noise still makes a level of its neighbours: take ``running_median`` of it first.
    noise : the standard deviation around a level; by default from differences of neighbours, the
        median of |Δ| ÷ (0.6745 √2), which changes of level barely touch, or their root mean square
        ÷ √2 where over half of them are 0.

    Positions refer to the series as given; NaN and infinities are left out. Fewer than 2·``least``
    finite points or no noise at all in a constant series: no changes. Of equal divisions, the one
    with the fewest changes.
    """
    if least < 1 or (penalty is not None and not penalty >= 0):
        raise Defect("a division into levels", "needs least ≥ 1, penalty ≥ 0", (least, penalty))
    found = np.asarray(y, dtype=np.float64)
    places = np.flatnonzero(np.isfinite(found))
    kept = found[places]
    scale = _noise(kept) if noise is None else noise
    if len(kept) < 2 * least or not scale > 0:
        return ()
    price = 3 * math.log(len(kept)) if penalty is None else penalty
    cuts = _best_cuts(_costs((kept - kept.mean()) / scale), price, least)
    return tuple(int(places[cut]) for cut in cuts)


def _cusum(rows: Floats) -> Floats:
    """Standardised |CUSUM| at each cut, [series, n − 1]."""
    n = rows.shape[1]
    before = np.arange(1, n)
    sums = np.cumsum(rows - rows.mean(axis=1, keepdims=True), axis=1)[:, :-1]
    return np.asarray(np.abs(sums) / np.sqrt(before * (n - before) / n))


def _noise(kept: Floats) -> float:
    # From steps, not from levels: a change of level makes one large step, which a median passes
    # over, where a standard deviation of the whole series would take it for noise.
    steps = np.abs(np.diff(kept))
    if not len(steps):
        return 0.0
    # A step is the difference of two points and has √2 of their noise. Of a rounded series more
    # than half of the steps may be 0.
    middle = float(np.median(steps)) / MEDIAN_OF_NORMAL
    return (middle if middle > 0 else float(np.sqrt(np.mean(steps**2)))) / math.sqrt(2)


def _costs(y: Floats) -> Floats:
    """Sums of squares around the mean of y[i:j], [n, n + 1]; 0 where j ≤ i."""
    n = len(y)
    sums = np.concatenate([[0.0], np.cumsum(y)])
    squares = np.concatenate([[0.0], np.cumsum(y**2)])
    sizes = np.arange(n + 1) - np.arange(n)[:, None]
    total = sums - sums[:n, None]
    costs = squares - squares[:n, None] - total**2 / np.maximum(sizes, 1)
    # A difference of large sums: rounding may take it below 0.
    return np.where(sizes > 0, np.maximum(costs, 0.0), 0.0)


def _best_cuts(costs: Floats, price: float, least: int) -> list[int]:
    n = len(costs)
    best = np.full(n + 1, np.inf)
    # The first segment begins without a change.
    best[0] = -price
    came: Ints = np.zeros(n + 1, dtype=np.int64)
    for end in range(least, n + 1):
        among = best[: end - least + 1] + costs[: end - least + 1, end] + price
        # The first of equals up to rounding is the one with the earliest, so longest, segment.
        came[end] = int(np.argmax(among <= among.min() + 1e-9))
        best[end] = among[came[end]]
    cuts, end = [], n
    while came[end] > 0:
        end = int(came[end])
        cuts.append(end)
    return cuts[::-1]
