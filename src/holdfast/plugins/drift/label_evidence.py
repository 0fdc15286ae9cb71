"""What few labels say beside many answers: the accuracy by both, and whether rows have become
harmful, that is, whether the model is wrong more often than it may be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from holdfast.core.records import Estimate, Floats
from holdfast.plugins.drift.payoffs import SURE
from holdfast.stats.intervals import normal_quantile, wilson
from holdfast.stats.streams.means import Detector, share_above

FEWEST = 30
TOLERANCE = 0.02


def powered_accuracy(right: Floats, chance: Floats, others: Floats) -> Estimate:
    """Prediction-powered accuracy (PPI++, 2311.01453) of ``n`` labelled rows, drawn evenly from
    the traffic, and ``N`` others.

        λ · mean(chance of the others) + mean(right − λ · chance of the labelled)

    ``right`` [n] is 1 or 0, ``chance`` [n] what the model says of how likely it is right there, and
    ``others`` [N] of the rows without a label. Whether the chances are honest does not matter: what
    they are wrong by is measured on the labelled rows. λ in [0, 1] is the one of the smallest
    variance, Cov(right, chance) ÷ ((1 + n/N) Var(chance)); at 0 it is the mean of the labels alone,
    so that it is no worse than that. Below 30 labels, or where all are alike, it is that mean with
    Wilson's interval, which a normal one is too narrow for. No label: no number.
    """
    n, many = len(right), len(others)
    if not n:
        return Estimate(None, why="no row has a label")
    known = np.isfinite(chance)
    if n < FEWEST or not known.all() or not many or 0 in (right.var(), chance.var()):
        low, high = wilson(float(right.sum()), n)
        return Estimate(float(right.mean()), low, high, note="of the labels alone")
    given = others[np.isfinite(others)]
    pooled = np.concatenate([chance, given])
    cov = float(np.cov(right, chance)[0, 1])
    weight = min(1.0, max(0.0, cov / ((1 + n / many) * float(pooled.var(ddof=1)))))
    rest = right - weight * chance
    mean = weight * float(given.mean()) + float(rest.mean())
    error = math.sqrt(
        weight**2 * float(given.var(ddof=1)) / len(given) + float(rest.var(ddof=1)) / n
    )
    half = normal_quantile(0.95) * error
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half))


@dataclass(frozen=True, slots=True, eq=False)
class HarmWatch:
    """Is the model wrong more often than on the reference by more than ``TOLERANCE``? Drift that
    costs nothing does not alarm here (Podkopaev and Ramdas, 2110.06177).

    The bound is the largest share of wrong answers that the labelled reference rows leave plausible
    plus the tolerance; each labelled row bets against it, in the order in which labels come.
    """

    allowed: float
    detector: Detector
    rows: int = 0
    wrong: int = 0

    @classmethod
    def of_reference(cls, right: Floats) -> HarmWatch | None:
        """Of the reference rows that were ``right`` (1 or 0; NaN unknown); ``None`` below 30."""
        known = right[np.isfinite(right)]
        if len(known) < FEWEST:
            return None
        most = share_above(int((known == 0).sum()), len(known), SURE)
        allowed = min(most + TOLERANCE, 1 - 1e-6)
        return cls(allowed, Detector.of_bounds(np.array([allowed])))

    def add(self, wrong: Floats, limit: float) -> tuple[HarmWatch, int | None]:
        """After more labelled rows (1 wrong, 0 right) [n], up to the first at which the evidence of
        harm reaches ``limit``, labelled rows between alarms."""
        given = np.asarray(wrong, dtype=np.float64)
        detector, at = self.detector.add(given[:, None], limit)
        rows, hits = self.rows + len(given[:at]), self.wrong + int(given[:at].sum())
        return replace(self, detector=detector, rows=rows, wrong=hits), at

    def to_json(self) -> dict[str, Any]:
        return {
            "tolerance": TOLERANCE,
            "detector": self.detector.to_json(),
            "rows": self.rows,
            "wrong": self.wrong,
        }

    def restored(self, said: Mapping[str, Any]) -> HarmWatch:
        """This watch, of the same reference, with what ``to_json`` wrote down."""
        detector = Detector.of(said["detector"])
        return replace(self, detector=detector, rows=int(said["rows"]), wrong=int(said["wrong"]))
