"""Sequential tests of means: rows arrive one after the other, and one may stop at any time.

The results are valid at every row at once, so checking them often costs nothing.
``betting_limits`` is a confidence sequence of one fixed mean of bounded values. ``sums_evidence``
gives e-values against "on average not above a mean" for bounded paired differences whose
distribution may drift, as traffic does. ``benchmarks/streams.py`` compares them with others.
``ArmSums`` provides such differences for two randomized groups (an A/B test): users come one after
the other, each is assigned to an arm with a known probability, and each brings one value. If both
models predict the same rows, ``rates.win_evidence`` needs far fewer of them.

These detect whether a change ever happened. For "since when", with repeated alarms, an e-detector
(Shin, Ramdas and Rinaldo, 2203.03532) starts a bet at every row and adds up the winnings:

    M_n = (1 + λ (x_n − b)) (M_{n−1} + 1),    alarm at M_n ≥ c

While every row's mean given the past is at most b, M_n − n is a supermartingale. Therefore the mean
number of rows until an alarm is **at least c** for any distribution (Shiryaev and Roberts'
statistic). The same holds for the average of many such M, over stakes λ and several values of a
row.

Within a training run the rows are fixed and the model changes: use ``stats/sequential_rise.py``.
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

# Elements of a table in memory at once: 8 MB of float64.
CHUNK = 1_000_000
# Stakes of ``sums_evidence``: for large effects and small ones.
MEAN_STAKES: Floats = 0.7 * 0.5 ** np.arange(12.0)


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """A confidence sequence: ``value`` is the running mean, and ``low`` and ``high`` contain the
    true mean at all rows at once; each [rows], in the unit of the values. They never widen."""

    value: Floats
    low: Floats
    high: Floats


def betting_limits(
    values: Floats, low: float = 0.0, high: float = 1.0, *, alpha: float = 0.05, grid: int = 1000
) -> StreamLimits:
    """The hedged capital confidence sequence (Waudby-Smith and Ramdas, 2010.09686, theorem 3).

    A bet at fair odds that the mean is not m gains much only if it is not. For each m of a
    grid on [low, high], with x and m on the scale [0, 1], the capitals
    K⁺ = ½ ∏ (1 + λ_i(m) (x_i − m)) and K⁻ = ½ ∏ (1 − λ_i(m) (x_i − m)) are followed, and m is
    rejected as soon as one of them reaches 1/alpha. The stake
    λ_i = √(2 log(2/alpha) ÷ (σ̂²_{i−1} i log(i + 1))), at most ½ ÷ m (½ ÷ (1 − m) for K⁻),
    uses only earlier values. Limits are rounded outwards to the grid, so its step should be small
    compared with the expected width; time and memory grow with rows × grid.

    The values must have one conditional mean given the past; independent rows do. A value outside
    [low, high] or NaN: a ``Defect``, because there is no guarantee then. No values: empty.
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
        # Both capitals are monotone in m, so everything beyond a rejected m is rejected.
        under[part] = np.where(up >= need, means, 0.0).max(axis=1)
        over[part] = np.where(down >= need, means, 1.0).min(axis=1)
        capital = np.stack([up[-1], down[-1]])
    mean = np.cumsum(x) / np.arange(1, len(x) + 1)
    # A rejected mean stays rejected, so the limits only narrow.
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
    Ramdas, 2110.00115), from three numbers per stream, which a service stores and tests for any
    mean.

    With S = Σ (δ_i − mean), V = Σ (δ_i − γ_i)², γ_i the mean of earlier differences, c = 2·bound:
    e = mean over stakes λ of exp(λ S − ψ(λ) V), ψ(λ) = (−log(1 − c λ) − c λ) ÷ c². The null: at
    every time the mean of E(δ_i | past) so far is at most ``mean``. The distribution may drift and
    rows may depend on earlier ones. For "below" give −total and −mean; for both, halve alpha. The
    value decreases as ``mean`` grows.

    ``total`` Σ δ_i, ``spread`` V and ``rows``, each [times], in the unit of the differences, which
    lie within ±``bound``. ``stakes`` are relative to a bound of ±½, fixed in advance, for large
    effects and small ones; any below 1 are valid.
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
    # A stake may use only earlier values: that makes the bet fair.
    earlier = np.concatenate([[0.25], variance[:-1]])[: len(x)]
    return np.asarray(np.sqrt(2 * math.log(2 / alpha) / (earlier * n * np.log1p(n))))


HALVINGS = 60
# Closer together and with a smaller range than those for any stream: of five sets tried at gains of
# 1 to 20 points this and one of 8 needed the fewest users, 1.9 to 2.2 times those of a fixed z
# test.
ARM_STAKES: Floats = 0.7 * 2.0 ** (-np.arange(10.0) / 2)


@dataclass(frozen=True, slots=True)
class ArmSums:
    """The state of two arms after some users, as a few sums; immutable, ``add`` returns another.

    A user's effect is δ = (y − ŷ) · (1 ÷ share in the second arm, −1 ÷ (1 − share) in the first),
    with y the user's value on a scale of [0, 1] and ŷ the mean of all users before. For any ŷ, its
    mean over the random assignment is the gain of the second arm for this user, so there is no
    assumption about users, who may differ and drift. ŷ removes the size of y from the spread, which
    is then that of a comparison of two means. ``share`` is that of the second arm; ``users`` and
    ``totals`` Σ y are those of the first and the second; ``effect`` is Σ δ, ``spread`` Σ (δ − mean
    of earlier δ)².
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
        """Number of users in both arms."""
        return sum(self.users)

    @property
    def bound(self) -> float:
        """The largest possible absolute effect."""
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
        value within [0, 1], both [n]. The result is the same as adding them one by one."""
        return self.add_with_path(second, values)[1]

    def add_with_path(self, second: Bools, values: Floats) -> tuple[Floats, ArmSums]:
        """``add``, with the path of the sums: effect, spread and rows [3, n] after each user."""
        arm, y = np.asarray(second, bool), np.asarray(values, dtype=np.float64)
        if arm.shape != y.shape or arm.ndim != 1:
            raise Defect("users of two arms", "must have one value each", (arm.shape, y.shape))
        if not np.all((y >= 0) & (y <= 1)):
            raise Defect("values of users", "must lie within [0, 1]", y[~((y >= 0) & (y <= 1))][0])
        if not len(y):
            return np.zeros((3, 0)), self
        rows = self.rows + np.arange(len(y))
        before = sum(self.totals) + np.concatenate([[0.0], np.cumsum(y)[:-1]])
        # Nothing is known before the first user: the middle of the scale.
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
        """The mean gains of the second arm so far that the evidence does not reject: they contain
        the true one at all times at once with probability 1 − ``alpha``."""
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


# A stake of 0.9 ÷ b loses nine tenths on a row of value 0; each is half of the one before.
STAKES, BOLDEST = 6, 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """An e-detector of a rise of the means of a row's values, each in [0, 1], above ``bounds``
    [k].

    ``evidence`` [k, stakes] are the M of each value and stake. ``run`` [k, stakes] are the log
    winnings of the best start of a bet so far and ``start`` [k, stakes] the row (0-based) of that
    start: Page's estimate of the change point. Immutable: ``add`` returns another one.
    """

    bounds: Floats
    evidence: Floats
    run: Floats
    start: Ints
    rows: int = 0

    @classmethod
    def of_bounds(cls, bounds: Floats) -> Detector:
        """A detector before the first row. A bound that is not strictly between 0 and 1: a
        ``Defect``."""
        given = np.asarray(bounds, dtype=np.float64)
        if not np.all((given > 0) & (given < 1)):
            raise Defect("the bounds of a detector", "must lie strictly between 0 and 1", bounds)
        shape = (len(given), STAKES)
        return cls(given, np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=np.int64))

    @property
    def stakes(self) -> Floats:
        """λ [k, stakes], fixed in advance."""
        return BOLDEST / self.bounds[:, None] * 0.5 ** np.arange(STAKES)

    @property
    def level(self) -> float:
        """The average M, to be compared with the mean number of rows between alarms."""
        return float(self.evidence.mean()) if self.evidence.size else 0.0

    @property
    def since(self) -> int:
        """The row (0-based) at which the bet with the largest winnings started."""
        return int(self.start.reshape(-1)[int(np.argmax(self.run))]) if self.run.size else 0

    @property
    def by(self) -> int:
        """The index of the value with the largest winnings."""
        return int(np.argmax(self.run)) // STAKES if self.run.size else 0

    def add(self, values: Floats, limit: float) -> tuple[Detector, int | None]:
        """The detector after rows ``values`` [n, k] in their order, up to the first at which the
        level reaches ``limit``, and the number of rows up to that; ``None`` if none does.

        NaN is a value without a bet, for a row on which nothing is known. A value outside [0, 1]: a
        ``Defect``.
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
        """The detector from the value of ``to_json``."""
        shape = (len(said["bounds"]), STAKES)
        return cls(
            np.array(said["bounds"], np.float64),
            np.array(said["evidence"], np.float64).reshape(shape),
            np.array(said["run"], np.float64).reshape(shape),
            np.array(said["start"], np.int64).reshape(shape),
            int(said["rows"]),
        )


def mean_above(m: int, deviation: float, level: float) -> float:
    """How far a mean may lie above the one of ``m`` rows with standard ``deviation``: the normal
    quantile of ``level`` times its standard error. ``share_above`` is the sibling for shares."""
    from scipy.special import ndtri

    return float(ndtri(level)) * deviation / math.sqrt(m)


def share_above(count: int, m: int, level: float) -> float:
    """The largest plausible share if ``count`` of ``m`` rows have a property: Clopper and Pearson's
    one-sided limit at ``level``, below 1."""
    from scipy.special import betaincinv

    if count >= m:
        return 1 - 1e-9
    return float(betaincinv(count + 1, m - count, level))
