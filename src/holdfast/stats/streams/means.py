"""Looks at a stream: rows arrive one after the other, and one may stop whenever one likes.

Each of these stays valid at every row at once, so looking costs nothing. Siblings:

- ``betting_limits``: a confidence sequence of the mean of bounded values; the narrowest.
- ``bernstein_limits``: the same promise in closed form; up to twice as wide at 30 rows, alike from
  a thousand, and hundreds of times cheaper.
- ``mean_evidence``: e-values against "on average not above 0" for bounded paired differences whose
  law may drift, as traffic does; the other two speak of one fixed mean. ``sums_evidence`` is the
  same from sums, for a service that keeps no rows; ``two_arms`` makes differences of two groups.
- ``mixture_sprt``: p-values for unbounded differences; exact only for normal values of a known
  variance, else in the long run.

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
# Of ``mean_evidence``: for large effects and small ones.
MEAN_STAKES: Floats = 0.7 * 0.5 ** np.arange(12.0)


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """A confidence sequence: ``value`` is the running mean, and ``low`` and ``high`` hold the true
    mean at all rows at once; each [rows], in the unit of the values. They never widen."""

    value: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True)
class StreamEvidence:
    """``e`` [rows] is the evidence against the null so far: its expectation under the null is at
    most 1 at any time one may choose to stop, and it may fall again. ``p_value`` [rows] is its
    running form, 1 ÷ the largest e so far, at most 1: valid at all rows at once."""

    e: Floats
    p_value: Floats


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
    x = _unit(values, low, high, alpha)
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
    return _limits(x, under, over, low, high)


def bernstein_limits(
    values: Floats, low: float = 0.0, high: float = 1.0, *, alpha: float = 0.05
) -> StreamLimits:
    """The predictable plug-in empirical Bernstein confidence sequence (2010.09686, theorem 2; after
    Howard and others, 1810.08240).

    Σ λ_i x_i ÷ Σ λ_i ± (log(2/alpha) + Σ (x_i − μ̂_{i−1})² ψ(λ_i)) ÷ Σ λ_i, with
    ψ(λ) = −log(1 − λ) − λ and the stakes of ``betting_limits``, at most ½; x on the scale [0, 1].
    Conditions and errors as there.
    """
    x = _unit(values, low, high, alpha)
    stakes = np.minimum(_stakes(x, alpha), 0.5)
    known = np.cumsum(stakes)
    spread = (x - _earlier_mean(x, 0.5)) ** 2
    centre = np.cumsum(stakes * x) / known
    half = (math.log(2 / alpha) + np.cumsum(spread * (-np.log1p(-stakes) - stakes))) / known
    return _limits(x, centre - half, centre + half, low, high)


def mean_evidence(gap: Floats, bound: float) -> StreamEvidence:
    """Evidence that paired differences are above 0 on average (Choe and Ramdas, 2110.00115).

    With S = Σ δ_i, V = Σ (δ_i − γ_i)², γ_i the mean of earlier differences, c = 2·bound:
    e = mean over stakes λ of exp(λ S − ψ(λ) V), ψ(λ) = (−log(1 − c λ) − c λ) ÷ c². The stakes are
    fixed beforehand, from 0.7 ÷ c down by factors of 2, for large effects and small ones. The null:
    at every time the mean of E(δ_i | past) so far is at most 0. The law may drift and rows may
    depend on earlier ones. For "below 0" give −gap; for both, halve alpha.

    ``gap`` [rows], each within ±``bound``; a value beyond it or NaN: a ``Defect``. No rows: empty.
    """
    if not 0 < bound < math.inf:
        raise Defect("the bound of differences", "must be positive and finite", bound)
    found = np.asarray(gap, dtype=np.float64)
    if not np.all(np.abs(found) <= bound):
        raise Defect("paired differences", f"must lie within ±{bound}", _worst(found))
    scaled = found / (2 * bound)
    spread = np.cumsum((scaled - _earlier_mean(scaled, 0.0)) ** 2)
    return _evidence(_log_bets(np.cumsum(scaled), spread, MEAN_STAKES))


def sums_evidence(
    total: Floats,
    spread: Floats,
    rows: Floats,
    bound: float,
    mean: float,
    stakes: Floats = MEAN_STAKES,
) -> Floats:
    """The log e-value of ``mean_evidence`` against "on average not above ``mean``", from the sums
    that it reads, each [times]: ``total`` Σ δ_i, ``spread`` Σ (δ_i − γ_i)² and the number of
    ``rows``; all in the unit of the differences, which lie within ±``bound``. So a service keeps
    three numbers a stream, and asks them of any mean. It falls as ``mean`` grows. ``stakes`` are
    those on a scale of ±½ for the bound, fixed beforehand; any below 1 are valid."""
    scale = 2 * bound
    return _log_bets(
        (np.asarray(total, float) - np.asarray(rows, float) * mean) / scale,
        np.asarray(spread, float) / scale**2,
        stakes,
    )


def _log_bets(total: Floats, spread: Floats, stakes: Floats) -> Floats:
    """The log of the mean over stakes of exp(λ S − ψ(λ) V), S and V [times] on a scale on which no
    difference is further than 1 from its centre."""
    price = -np.log1p(-stakes) - stakes
    logs = np.asarray(total)[..., None] * stakes - np.asarray(spread)[..., None] * price
    # The usual shift before exponentials, which overflow in long streams.
    top = logs.max(axis=-1, initial=0.0)
    return np.asarray(top + np.log(np.mean(np.exp(logs - top[..., None]), axis=-1)))


def mixture_sprt(
    gap: Floats, effect: float, *, variance: float | None = None, first: int = 300
) -> StreamEvidence:
    """The mixture sequential probability ratio test of "the mean is 0" (Robbins 1970; Johari,
    Pekelis and Walsh, 1512.04922), two-sided.

    e_n = √(V ÷ (V + n τ²)) · exp(n² τ² ȳ² ÷ (2 V (V + n τ²))): the likelihood ratio averaged over
    effects from N(0, τ²). ``effect`` is τ, the size of effect one hopes to see quickly; any value
    is valid. With ``variance`` V known and normal values it is exact. Without it, V is the running
    sample variance and nothing is claimed before row ``first``: valid in the long run. A skewed law
    takes its time: read after every row up to the 3,000th, exponential differences raised a false
    alarm at 5 % in 8 to 9 % of streams from row 30, in under 3 % from row 300; log-normal ones
    (σ = 1) in 16 and in about 5 %. ``benchmarks/RESULTS.md`` has the laws.

    ``gap`` [rows]; a value that is not finite, or an effect or variance that is not positive: a
    ``Defect``. A running variance of 0 claims nothing. No rows: empty.
    """
    found = np.asarray(gap, dtype=np.float64)
    if not np.isfinite(found).all():
        raise Defect("paired differences", "must be finite", _worst(found))
    if not effect > 0 or (variance is not None and not variance > 0):
        rule = "must be positive"
        raise Defect("the effect and the variance of a stream", rule, (effect, variance))
    n = np.arange(1, len(found) + 1)
    total = np.cumsum(found)
    spread = np.full(len(found), variance or 0.0)
    if variance is None:
        # A variance from squares loses its digits where the mean is large beside the spread.
        shifted = found - (found[0] if len(found) else 0.0)
        sums, squares = np.cumsum(shifted), np.cumsum(shifted**2)
        spread = np.maximum(squares - sums**2 / n, 0.0) / np.maximum(n - 1, 1)
        spread[spread <= 1e-14 * np.maximum(squares / n, 1e-300)] = 0.0
    known = (spread > 0) & ((n >= first) | (variance is not None))
    safe, prior = np.where(known, spread, 1.0), effect**2
    logs = 0.5 * np.log(safe / (safe + n * prior))
    logs += prior * total**2 / (2 * safe * (safe + n * prior))
    return _evidence(np.where(known, logs, 0.0))


def _evidence(logs: Floats) -> StreamEvidence:
    most = np.maximum.accumulate(np.maximum(logs, 0.0))
    with np.errstate(over="ignore"):
        return StreamEvidence(np.exp(logs), np.exp(-most))


def _unit(values: Floats, low: float, high: float, alpha: float) -> Floats:
    if not (-math.inf < low < high < math.inf):
        raise Defect("the range of a stream", "needs finite low < high", (low, high))
    if not 0 < alpha < 1:
        raise Defect("the error of a stream", "must lie strictly between 0 and 1", alpha)
    found = np.asarray(values, dtype=np.float64)
    if not np.all((found >= low) & (found <= high)):
        rule = f"must lie within [{low}, {high}]"
        raise Defect("the values of a stream", rule, _worst(found))
    return np.asarray((found - low) / (high - low))


def _worst(values: Floats) -> float:
    return float(values[np.argmax(np.where(np.isnan(values), np.inf, np.abs(values)))])


def _earlier_mean(x: Floats, prior: float) -> Floats:
    """Before each value, the mean of ``prior`` and the values before it."""
    before = np.concatenate([[0.0], np.cumsum(x)[:-1]])[: len(x)]
    return np.asarray((prior + before) / np.arange(1, len(x) + 1))


def _stakes(x: Floats, alpha: float) -> Floats:
    n = np.arange(1, len(x) + 1)
    mean = (0.5 + np.cumsum(x)) / (n + 1)
    # A first row of variance ¼, the largest on [0, 1], and of mean ½: without it the first stakes
    # would be infinite.
    variance = (0.25 + np.cumsum((x - mean) ** 2)) / (n + 1)
    # A stake may look at earlier values alone: that makes the bet fair.
    earlier = np.concatenate([[0.25], variance[:-1]])[: len(x)]
    return np.asarray(np.sqrt(2 * math.log(2 / alpha) / (earlier * n * np.log1p(n))))


def _limits(x: Floats, under: Floats, over: Floats, low: float, high: float) -> StreamLimits:
    width = high - low
    mean = np.cumsum(x) / np.arange(1, len(x) + 1)
    # A mean that was refused once stays refused, so limits only close in.
    lower = np.maximum.accumulate(np.clip(under, 0.0, 1.0))
    upper = np.minimum.accumulate(np.clip(over, 0.0, 1.0))
    return StreamLimits(low + width * mean, low + width * lower, low + width * upper)
