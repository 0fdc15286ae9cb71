"""Two groups that chance parts (an A/B test): how much more the second brings, valid at every look.

Users come one after the other, a coin of a known share sends each into an arm, and each brings a
value once. Siblings: ``pair_stream`` where both models answer the same rows, which needs far fewer
of them; ``rate_stream.rate_evidence`` for the coin itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats
from holdfast.stats.intervals import last_refused
from holdfast.stats.paired_tests import Bools
from holdfast.stats.streams.means import sums_evidence

STEPS = 60
# Closer together and reaching less far than those for any stream: of five sets tried at gains of 1
# to 20 points this and one of 8 needed the fewest users, 1.9 to 2.2 times those of a fixed z test.
STAKES: Floats = 0.7 * 2.0 ** (-np.arange(10.0) / 2)


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
        return self.course(second, values)[1]

    def course(self, second: Bools, values: Floats) -> tuple[Floats, ArmSums]:
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
        need, centre = math.log(2 / alpha), self.effect / self.rows

        def edge(side: float) -> float:
            def refused(mean: float) -> bool:
                found = effect_evidence(side * self.effect, self.spread, self.rows, self, mean)
                return float(found) >= need

            outside = side * centre - 2 * self.bound
            return side * last_refused(refused, outside, side * centre, STEPS)

        return max(-1.0, edge(1.0)), min(1.0, edge(-1.0))


def effect_evidence(
    effect: Floats | float, spread: Floats | float, rows: Floats | float, arms: ArmSums, mean: float
) -> Floats:
    """The log e-value of "the gain is above ``mean``" (``streams.sums_evidence``), from sums
    [times]; for "below" give −effect and −mean."""
    total, square, n = (np.asarray(one, dtype=np.float64) for one in (effect, spread, rows))
    return sums_evidence(total, square, n, arms.bound, mean, STAKES)
