"""How well a score tells the rows that a model learned from (members) from rows that it never saw
(others): the area under the ROC curve, and the members found at few false alarms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.core.records import Estimate, Floats
from holdfast.stats.auc import Area, delong, delong_difference
from holdfast.stats.intervals import clopper_pearson

FEWEST = 20
RATES = (0.1, 0.01, 0.001)
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Found:
    """The share of the members above a threshold at which at most ``at_fpr`` of others are."""

    at_fpr: float
    share: Estimate

    def to_json(self) -> dict[str, Any]:
        return {"at_fpr": self.at_fpr, **self.share.to_json()}


@dataclass(frozen=True, slots=True)
class Membership:
    """One attack's ``auc`` with DeLong's interval and its ``tpr``; ``p_value`` of "no better than
    chance", one-sided."""

    attack: str
    auc: Estimate
    tpr: tuple[Found, ...]
    p_value: float

    @property
    def shown(self) -> bool:
        """Whether members are told from others beyond chance."""
        return self.auc.low is not None and self.auc.low > 0.5

    def to_json(self) -> dict[str, Any]:
        tpr = [one.to_json() for one in self.tpr]
        return {"auc": self.auc.to_json(), "tpr": tpr, "p_value": self.p_value}


def membership(attack: str, members: Floats, others: Floats) -> Membership:
    """How well ``attack`` tells ``members`` [n] from ``others`` [m] by their scores, high for
    members. Scores that are NaN are left out; fewer than 20 of either say nothing."""
    one, other = (np.asarray(x, dtype=np.float64) for x in (members, others))
    one, other = one[~np.isnan(one)], other[~np.isnan(other)]
    found = tuple(found_at(one, other, rate) for rate in rates_for(len(other)))
    few = min(len(one), len(other))
    if few < FEWEST:
        why = f"one set has {few} rows; {FEWEST} are needed"
        return Membership(attack, Estimate(None, why=why), found, math.nan)
    area = delong(
        np.repeat([True, False], [len(one), len(other)]), np.concatenate([one, other]), LEVEL
    )
    return Membership(attack, as_estimate(area), found, beyond_chance(area))


def as_estimate(area: Area, level: float = LEVEL) -> Estimate:
    """The area as a number with its interval."""
    if math.isnan(area.value) or math.isnan(area.low):
        return Estimate(None, why="too few rows of one side")
    return Estimate(area.value, area.low, area.high, level)


def beyond_chance(area: Area) -> float:
    """The one-sided p-value of "the area is one half", by the normal law of DeLong's error."""
    from scipy.special import ndtr

    if not area.error > 0:
        return math.nan if math.isnan(area.value) or area.value == 0.5 else float(area.value < 0.5)
    return float(ndtr(-(area.value - 0.5) / area.error))


def better(members: tuple[Floats, Floats], others: tuple[Floats, Floats]) -> dict[str, float]:
    """By how much the first score tells members from others better than the second: the difference
    of the areas on the same rows, paired (DeLong)."""
    labels = np.repeat([True, False], [len(members[0]), len(others[0])])
    one, other = (np.concatenate([members[i], others[i]]) for i in (0, 1))
    found = delong_difference(labels, one, other)
    return {"value": found.value, "low": found.low, "high": found.high, "p": found.p_value}


def rates_for(others: int) -> tuple[float, ...]:
    """The usual rates of false alarms, and the smallest that so many others can show."""
    smallest = smallest_rate(others)
    return tuple(sorted({*RATES, smallest} if smallest < 1 else RATES, reverse=True))


def smallest_rate(others: int) -> float:
    """The rate that so many rows without one false alarm show at 95 %: 1 − 0.05^(1/m). 2,995 rows
    show 0.1 % (2406.16201)."""
    return 1 - (1 - LEVEL) ** (1 / others) if others else 1.0


def allowed(others: int, rate: float) -> int | None:
    """How many false alarms among ``others`` rows still show a rate of at most ``rate``, by Clopper
    and Pearson's upper limit at 95 % (one-sided); ``None`` where even none does not."""
    # The upper end of a two-sided 90 % interval is the one-sided limit at 95 %.
    level = 2 * LEVEL - 1
    best = None
    for alarms in range(int(others * rate) + 1):
        if clopper_pearson(alarms, others, level)[1] > rate * (1 + 1e-9):
            break
        best = alarms
    return best


def found_at(members: Floats, others: Floats, rate: float) -> Found:
    """The share of the members above a threshold that lets through so few of the others that their
    rate is shown to be at most ``rate``, with Clopper and Pearson's interval."""
    alarms = allowed(len(others), rate) if len(others) else None
    if alarms is None or not len(members):
        needed = math.ceil(math.log(1 - LEVEL) / math.log1p(-rate))
        why = f"needs {needed:,} rows that were not trained on; there are {len(others)}"
        return Found(rate, Estimate(None, why=why))
    # Members that tie with an other are not found: no threshold parts them.
    bar = np.sort(others)[::-1][alarms]
    hits = int((members > bar).sum())
    low, high = clopper_pearson(hits, len(members), LEVEL)
    return Found(rate, Estimate(hits / len(members), low, high, LEVEL))


def rows_to_see(area: float) -> int:
    """How many members and as many others show an ``area`` as better than chance four times in
    five: 6 n (area − ½)² = (1.96 + 0.84)², by the variance of the rank test under chance."""
    return math.ceil(2.802**2 / (6 * (area - 0.5) ** 2))


def smallest_area(members: int, others: int) -> float:
    """The area that so many rows show as better than chance four times in five."""
    return min(1.0, 0.5 + 2.802 * math.sqrt((1 / members + 1 / others) / 12))
