"""Looks at a stream: rows arrive one after the other, and one may stop whenever one likes.

Both of these stay valid at every row at once, so looking costs nothing. ``betting_limits`` is a
confidence sequence of one fixed mean of bounded values. ``sums_evidence`` gives e-values against
"on average not above a mean" for bounded paired differences whose law may drift, as traffic does;
``arms`` makes differences of two groups. ``benchmarks/streams.py`` has them beside others.

Within a training run the rows are fixed and the model changes: that is ``looks``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats

# Elements of a table held at once: 8 MB of float64.
CHUNK = 1_000_000
# Of ``sums_evidence``: for large effects and small ones.
MEAN_STAKES: Floats = 0.7 * 0.5 ** np.arange(12.0)


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """A confidence sequence: ``value`` is the running mean, and ``low`` and ``high`` hold the true
    mean at all rows at once; each [rows], in the unit of the values. They never widen."""

    value: Floats
    low: Floats
    high: Floats


def betting_limits(
    values: Floats, low: float = 0.0, high: float = 1.0, *, alpha: float = 0.05, grid: int = 1000
) -> StreamLimits:
    """The hedged capital confidence sequence (Waudby-Smith and Ramdas, 2010.09686, theorem 3).

    Whoever bets at fair odds that the mean is not m grows rich only if it is not. For each m of a
    grid on [low, high], with x and m on the scale [0, 1], the capitals
    K⁺ = ½ ∏ (1 + λ_i(m) (x_i − m)) and K⁻ = ½ ∏ (1 − λ_i(m) (x_i − m)) are followed, and m is
    refused from the moment one of them reaches 1/alpha. The stake
    λ_i = √(2 log(2/alpha) ÷ (σ̂²_{i−1} i log(i + 1))), at most ½ ÷ m (½ ÷ (1 − m) for K⁻),
    looks at earlier values alone. Limits are rounded outwards to the grid, so that its step should
    be small beside the width one hopes for; time and memory grow with rows × grid.

    The values must have one conditional mean given the past; independent rows do. A value outside
    [low, high] or NaN: a ``Defect``, since nothing is promised then. No values: empty.
    """
    if not (-math.inf < low < high < math.inf):
        raise Defect("the range of a stream", "needs finite low < high", (low, high))
    if not 0 < alpha < 1:
        raise Defect("the error of a stream", "must lie strictly between 0 and 1", alpha)
    found = np.asarray(values, dtype=np.float64)
    if not np.all((found >= low) & (found <= high)):
        worst = found[np.argmax(np.where(np.isnan(found), np.inf, np.abs(found)))]
        raise Defect("the values of a stream", f"must lie within [{low}, {high}]", float(worst))
    width = high - low
    x = (found - low) / width
    stakes = _stakes(x, alpha)
    means = np.linspace(0.0, 1.0, grid + 1)
    need = math.log(2 / alpha)
    under, over = np.zeros(len(x)), np.ones(len(x))
    capital = np.zeros((2, grid + 1))
    rows = max(1, CHUNK // (grid + 1))
    with np.errstate(divide="ignore"):
        caps = 0.5 / means, 0.5 / (1 - means)
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        gap, stake = x[part, None] - means, stakes[part, None]
        up = capital[0] + np.cumsum(np.log1p(np.minimum(stake, caps[0]) * gap), axis=0)
        down = capital[1] + np.cumsum(np.log1p(-np.minimum(stake, caps[1]) * gap), axis=0)
        # Both capitals are monotone in m, so what lies beyond a refused m is refused.
        under[part] = np.where(up >= need, means, 0.0).max(axis=1)
        over[part] = np.where(down >= need, means, 1.0).min(axis=1)
        capital = np.stack([up[-1], down[-1]])
    mean = np.cumsum(x) / np.arange(1, len(x) + 1)
    # A mean that was refused once stays refused, so limits only close in.
    lower, upper = np.maximum.accumulate(under), np.minimum.accumulate(over)
    return StreamLimits(low + width * mean, low + width * lower, low + width * upper)


def sums_evidence(
    total: Floats,
    spread: Floats,
    rows: Floats,
    bound: float,
    mean: float,
    stakes: Floats = MEAN_STAKES,
) -> Floats:
    """The log e-value [times] of "paired differences are above ``mean`` on average" (Choe and
    Ramdas, 2110.00115), from three numbers a stream, which a service keeps and asks of any mean.

    With S = Σ (δ_i − mean), V = Σ (δ_i − γ_i)², γ_i the mean of earlier differences, c = 2·bound:
    e = mean over stakes λ of exp(λ S − ψ(λ) V), ψ(λ) = (−log(1 − c λ) − c λ) ÷ c². The null: at
    every time the mean of E(δ_i | past) so far is at most ``mean``. The law may drift and rows may
    depend on earlier ones. For "below" give −total and −mean; for both, halve alpha. It falls as
    ``mean`` grows.

    ``total`` Σ δ_i, ``spread`` V and ``rows``, each [times], in the unit of the differences, which
    lie within ±``bound``. ``stakes`` are those on a scale of ±½ for the bound, fixed beforehand,
    for large effects and small ones; any below 1 are valid.
    """
    scale = 2 * bound
    above = (np.asarray(total, float) - np.asarray(rows, float) * mean) / scale
    price = -np.log1p(-stakes) - stakes
    logs = above[..., None] * stakes - (np.asarray(spread, float) / scale**2)[..., None] * price
    # The usual shift before exponentials, which overflow in long streams.
    top = logs.max(axis=-1, initial=0.0)
    return np.asarray(top + np.log(np.mean(np.exp(logs - top[..., None]), axis=-1)))


def _stakes(x: Floats, alpha: float) -> Floats:
    n = np.arange(1, len(x) + 1)
    mean = (0.5 + np.cumsum(x)) / (n + 1)
    # A first row of variance ¼, the largest on [0, 1], and of mean ½: without it the first stakes
    # would be infinite.
    variance = (0.25 + np.cumsum((x - mean) ** 2)) / (n + 1)
    # A stake may look at earlier values alone: that makes the bet fair.
    earlier = np.concatenate([[0.25], variance[:-1]])[: len(x)]
    return np.asarray(np.sqrt(2 * math.log(2 / alpha) / (earlier * n * np.log1p(n))))
