"""Means on a stream: rows arrive one after the other, and one may stop whenever one likes.

Both of these stay valid at every row at once, so looking costs nothing. ``betting_limits`` is a
confidence sequence of one fixed mean of bounded values. ``sums_evidence`` gives e-values against
"on average not above a mean" for bounded paired differences whose law may drift, as traffic does.
``benchmarks/streams.py`` has them beside others. ``ArmSums`` makes such differences of two groups
that chance parts (an A/B test): users come one after the other, a coin of a known share sends each
into an arm, and each brings a value once; where both models answer the same rows,
``rates.win_evidence`` needs far fewer of them.

These answer "ever"; traffic asks "since when", again and again. An e-detector (Shin, Ramdas and
Rinaldo, 2203.03532) starts a bet at every row and adds up what they won:

    M_n = (1 + λ (x_n − b)) (M_{n−1} + 1),    alarm at M_n ≥ c

While every row's mean given the past is at most b, M_n − n is a supermartingale, so that the mean
number of rows until an alarm is **at least c** whatever the law (Shiryaev and Roberts' statistic).
The same holds of the average of many such M, over stakes λ and over several values of a row.

Within a training run the rows are fixed and the model changes: that is
``stats/sequential_rise.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints
from holdfast.stats.intervals import rejection_limit
from holdfast.stats.paired_tests import Bools

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
    edges = np.asarray(values, dtype=np.float64)
    if not np.all((edges >= low) & (edges <= high)):
        worst = edges[np.argmax(np.where(np.isnan(edges), np.inf, np.abs(edges)))]
        raise Defect("the values of a stream", f"must lie within [{low}, {high}]", float(worst))
    width = high - low
    x = (edges - low) / width
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


HALVINGS = 60
# Closer together and reaching less far than those for any stream: of five sets tried at gains of 1
# to 20 points this and one of 8 needed the fewest users, 1.9 to 2.2 times those of a fixed z test.
ARM_STAKES: Floats = 0.7 * 2.0 ** (-np.arange(10.0) / 2)


@dataclass(frozen=True, slots=True)
class ArmSums:
    """What is known of two arms after some users, in a few sums; a value, ``add`` returns another.

    A user's effect is δ = (y − ŷ) · (1 ÷ share in the second arm, −1 ÷ (1 − share) in the first),
    with y the user's value on a scale of [0, 1] and ŷ the mean of all users before: whatever ŷ is,
    its mean over the coin is the gain of the second arm for this user, so nothing is promised of
    users, who may differ and drift. ŷ takes the size of y out of the spread, which is then that of
    a comparison of two means. ``share`` is that of the second arm; ``users`` and ``totals`` Σ y are
    of the first and the second; ``effect`` is Σ δ, ``spread`` Σ (δ − mean of earlier δ)².
    """

    share: float = 0.5
    users: tuple[int, int] = (0, 0)
    totals: tuple[float, float] = (0.0, 0.0)
    effect: float = 0.0
    spread: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise Defect("the share of an arm", "must lie strictly between 0 and 1", self.share)

    @property
    def rows(self) -> int:
        """Users of both arms."""
        return sum(self.users)

    @property
    def bound(self) -> float:
        """How far an effect can be from 0."""
        return 1 / min(self.share, 1 - self.share)

    @property
    def means(self) -> tuple[float, float]:
        """The mean value of a user in the first and the second arm; NaN without users."""
        one, two = (
            total / n if n else math.nan for total, n in zip(self.totals, self.users, strict=True)
        )
        return one, two

    def add(self, second: Bools, values: Floats) -> ArmSums:
        """The sums after more users, in their order: whether each is in the second arm, and its
        value within [0, 1], both [n]. It equals adding them one by one."""
        return self.add_with_path(second, values)[1]

    def add_with_path(self, second: Bools, values: Floats) -> tuple[Floats, ArmSums]:
        """``add``, and what the sums were on the way: effect, spread and rows [3, n] after each."""
        arm, y = np.asarray(second, bool), np.asarray(values, dtype=np.float64)
        if arm.shape != y.shape or arm.ndim != 1:
            raise Defect("users of two arms", "must have one value each", (arm.shape, y.shape))
        if not np.all((y >= 0) & (y <= 1)):
            raise Defect("values of users", "must lie within [0, 1]", y[~((y >= 0) & (y <= 1))][0])
        if not len(y):
            return np.zeros((3, 0)), self
        rows = self.rows + np.arange(len(y))
        before = sum(self.totals) + np.concatenate([[0.0], np.cumsum(y)[:-1]])
        # Of the first user of all nothing is known: the middle of the scale.
        centre = np.where(rows > 0, before / np.maximum(rows, 1), 0.5)
        gap = (y - centre) * np.where(arm, 1 / self.share, -1 / (1 - self.share))
        effect = self.effect + np.cumsum(gap)
        earlier = np.concatenate([[self.effect], effect[:-1]]) / np.maximum(rows, 1)
        spread = self.spread + np.cumsum((gap - earlier) ** 2)
        after = replace(
            self,
            users=(self.users[0] + int((~arm).sum()), self.users[1] + int(arm.sum())),
            totals=(self.totals[0] + float(y[~arm].sum()), self.totals[1] + float(y[arm].sum())),
            effect=float(effect[-1]),
            spread=float(spread[-1]),
        )
        return np.stack([effect, spread, rows + 1.0]), after

    def limits(self, alpha: float = 0.05) -> tuple[float, float]:
        """The mean gains of the second arm so far that the evidence does not refuse: they hold the
        true one at all looks at once with probability 1 − ``alpha``."""
        if not self.rows:
            return -1.0, 1.0
        evidence_needed, centre = math.log(2 / alpha), self.effect / self.rows

        def edge(side: float) -> float:
            def is_rejected(mean: float) -> bool:
                found = effect_evidence(side * self.effect, self.spread, self.rows, self, mean)
                return float(found) >= evidence_needed

            outside = side * centre - 2 * self.bound
            return side * rejection_limit(is_rejected, outside, side * centre, HALVINGS)

        return max(-1.0, edge(1.0)), min(1.0, edge(-1.0))


def effect_evidence(
    effect: Floats | float, spread: Floats | float, rows: Floats | float, arms: ArmSums, mean: float
) -> Floats:
    """The log e-value of "the gain is above ``mean``" (``sums_evidence``), from sums
    [times]; for "below" give −effect and −mean."""
    total, square, n = (np.asarray(one, dtype=np.float64) for one in (effect, spread, rows))
    return sums_evidence(total, square, n, arms.bound, mean, ARM_STAKES)


# A stake of 0.9 ÷ b loses nine tenths at a row of value 0; each is half of the one before.
STAKES, BOLDEST = 6, 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """Bets that the means of the values of a row, each in [0, 1], have risen above ``bounds`` [k].

    ``evidence`` [k, stakes] are the M of each value and stake. ``run`` [k, stakes] are the log
    winnings of the best start of a bet so far and ``start`` [k, stakes] the row (0-based) of that
    start: the estimate of since when, Page's. A value: ``add`` returns another one.
    """

    bounds: Floats
    evidence: Floats
    run: Floats
    start: Ints
    rows: int = 0

    @classmethod
    def of_bounds(cls, bounds: Floats) -> Detector:
        """A detector that has seen nothing. A bound that is not strictly between 0 and 1: a
        ``Defect``."""
        given = np.asarray(bounds, dtype=np.float64)
        if not np.all((given > 0) & (given < 1)):
            raise Defect("the bounds of a detector", "must lie strictly between 0 and 1", bounds)
        shape = (len(given), STAKES)
        return cls(given, np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=np.int64))

    @property
    def stakes(self) -> Floats:
        """λ [k, stakes], fixed beforehand."""
        return BOLDEST / self.bounds[:, None] * 0.5 ** np.arange(STAKES)

    @property
    def level(self) -> float:
        """The average M, to be held against the rows between alarms."""
        return float(self.evidence.mean()) if self.evidence.size else 0.0

    @property
    def since(self) -> int:
        """The row (0-based) from which on the bet that won most was won."""
        return int(self.start.reshape(-1)[int(np.argmax(self.run))]) if self.run.size else 0

    @property
    def by(self) -> int:
        """Which of the values won most."""
        return int(np.argmax(self.run)) // STAKES if self.run.size else 0

    def add(self, values: Floats, limit: float) -> tuple[Detector, int | None]:
        """The detector after rows ``values`` [n, k] in their order, up to the first at which the
        level reaches ``limit``, and how many rows that was; ``None`` where none did.

        NaN is a value that was not bet on, as where nothing is known of a row. A value outside
        [0, 1]: a ``Defect``.
        """
        x = np.asarray(values, dtype=np.float64)
        known = ~np.isnan(x)
        if not np.all((x >= 0) & (x <= 1) | ~known):
            raise Defect("the values of a detector", "must lie within [0, 1]", float(np.nanmax(x)))
        gain = np.where(known, x - self.bounds, 0.0)
        factors = 1 + self.stakes * gain[:, :, None]
        logs, new_bets = np.log(factors), known.astype(np.float64)[:, :, None]
        total, run, start = self.evidence.copy(), self.run.copy(), self.start.copy()
        for i in range(len(x)):
            total = factors[i] * (total + new_bets[i])
            start[run <= 0] = self.rows + i
            run = np.maximum(run, 0) + logs[i]
            if total.mean() >= limit:
                ended = replace(self, evidence=total, run=run, start=start, rows=self.rows + i + 1)
                return ended, i + 1
        updated = replace(self, evidence=total, run=run, start=start, rows=self.rows + len(x))
        return updated, None

    def to_json(self) -> dict[str, Any]:
        return {
            "bounds": self.bounds.tolist(),
            "evidence": self.evidence.tolist(),
            "run": self.run.tolist(),
            "start": self.start.tolist(),
            "rows": self.rows,
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Detector:
        """The detector that ``to_json`` wrote down."""
        shape = (len(said["bounds"]), STAKES)
        return cls(
            np.array(said["bounds"], np.float64),
            np.array(said["evidence"], np.float64).reshape(shape),
            np.array(said["run"], np.float64).reshape(shape),
            np.array(said["start"], np.int64).reshape(shape),
            int(said["rows"]),
        )


def mean_above(m: int, deviation: float, level: float) -> float:
    """By how much a mean may lie above the one of ``m`` rows of that standard ``deviation``: the
    normal quantile of ``level`` times its error. ``share_above`` is its sibling for shares."""
    from scipy.special import ndtri

    return float(ndtri(level)) * deviation / math.sqrt(m)


def share_above(count: int, m: int, level: float) -> float:
    """The largest share that is plausible where ``count`` of ``m`` rows have it: Clopper and
    Pearson's one-sided limit at ``level``, below 1."""
    from scipy.special import betaincinv

    if count >= m:
        return 1 - 1e-9
    return float(betaincinv(count + 1, m - count, level))
