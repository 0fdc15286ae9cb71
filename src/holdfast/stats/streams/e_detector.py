"""An alarm for a stream that never ends: when did the mean of bounded values rise above a bound?

A test that may be looked at any time (``means.sums_evidence``) answers "ever"; traffic asks
"since when", again and again. An e-detector (Shin, Ramdas and Rinaldo, 2203.03532) starts a bet at
every row and adds up what they won:

    M_n = (1 + λ (x_n − b)) (M_{n−1} + 1),    alarm at M_n ≥ c

While every row's mean given the past is at most b, M_n − n is a supermartingale, so that the mean
number of rows until an alarm is **at least c** whatever the law (Shiryaev and Roberts' statistic).
The same holds of the average of many such M, over stakes λ and over several values of a row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints

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
        logs, begun = np.log(factors), known.astype(np.float64)[:, :, None]
        total, run, start = self.evidence.copy(), self.run.copy(), self.start.copy()
        for i in range(len(x)):
            total = factors[i] * (total + begun[i])
            start[run <= 0] = self.rows + i
            run = np.maximum(run, 0) + logs[i]
            if total.mean() >= limit:
                ended = replace(self, evidence=total, run=run, start=start, rows=self.rows + i + 1)
                return ended, i + 1
        made = replace(self, evidence=total, run=run, start=start, rows=self.rows + len(x))
        return made, None

    def to_json(self) -> dict[str, Any]:
        return {
            "bounds": self.bounds.tolist(),
            "evidence": self.evidence.tolist(),
            "run": self.run.tolist(),
            "start": self.start.tolist(),
            "rows": self.rows,
        }

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Detector:
        """The detector that ``to_json`` wrote down."""
        shape = (len(said["bounds"]), STAKES)
        return cls(
            np.array(said["bounds"], np.float64),
            np.array(said["evidence"], np.float64).reshape(shape),
            np.array(said["run"], np.float64).reshape(shape),
            np.array(said["start"], np.int64).reshape(shape),
            int(said["rows"]),
        )


def mean_above(m: int, deviation: float, sure: float) -> float:
    """By how much a mean may lie above the one of ``m`` rows of that standard ``deviation``: the
    normal quantile of ``sure`` times its error. ``share_above`` is its sibling for shares."""
    from scipy.special import ndtri

    return float(ndtri(sure)) * deviation / math.sqrt(m)


def share_above(count: int, m: int, sure: float) -> float:
    """The largest share that is plausible where ``count`` of ``m`` rows have it: Clopper and
    Pearson's one-sided limit at ``sure``, below 1."""
    from scipy.special import betaincinv

    if count >= m:
        return 1 - 1e-9
    return float(betaincinv(count + 1, m - count, sure))
