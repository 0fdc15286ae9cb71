"""Membership inference: how well a score separates the rows that a model was trained on (members)
from rows that it never saw (others): the area under the ROC curve, and the members found at low
false positive rates. The scores read only numbers per row.

A score is high if the model seems to have been trained on the row. The **loss** shows how well the
model knows the row (Yeom and others 2018, 1709.01604). Since some rows are easy for any model, the
other scores are relative: to the base model (**ratio**, Carlini and others 2021, 2012.07805), to
the base model at the tokens that the model still gets wrong (**errors**, 2601.12104), or to similar
rows (**conditioned**, QMIA, Bertran and others 2023, 2307.03694).

``most_exposed`` lists the rows that membership inference would expose first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.core.printable import shorten
from holdfast.core.records import Estimate, Floats, Ints
from holdfast.core.seeds import generator
from holdfast.stats.auc import Area, delong, delong_difference
from holdfast.stats.intervals import clopper_pearson

MIN_ROWS = 20
RATES = (0.1, 0.01, 0.001)
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class AttackRate:
    """The share of members above a threshold that at most ``at_fpr`` of the others exceed."""

    at_fpr: float
    share: Estimate

    def to_json(self) -> dict[str, Any]:
        return {"at_fpr": self.at_fpr, **self.share.to_json()}


@dataclass(frozen=True, slots=True)
class Membership:
    """One attack's ``auc`` with DeLong's interval and its ``tpr``; ``p_value`` is the one-sided
    test of "no better than chance"."""

    attack: str
    auc: Estimate
    tpr: tuple[AttackRate, ...]
    p_value: float

    @property
    def above_chance(self) -> bool:
        """Whether the lower limit of the area is above 0.5."""
        return self.auc.low is not None and self.auc.low > 0.5

    def to_json(self) -> dict[str, Any]:
        tpr = [one.to_json() for one in self.tpr]
        return {"auc": self.auc.to_json(), "tpr": tpr, "p_value": self.p_value}


def membership(attack: str, members: Floats, others: Floats) -> Membership:
    """How well ``attack`` separates ``members`` [n] from ``others`` [m] by their scores, high for
    members. NaN scores are left out; with fewer than 20 of either there is no area."""
    one, other = (np.asarray(x, dtype=np.float64) for x in (members, others))
    one, other = one[~np.isnan(one)], other[~np.isnan(other)]
    rates = tuple(attack_rate(one, other, rate) for rate in false_alarm_rates(len(other)))
    n_smaller = min(len(one), len(other))
    if n_smaller < MIN_ROWS:
        why = f"one set has {n_smaller} rows; {MIN_ROWS} are needed"
        return Membership(attack, Estimate(None, why=why), rates, math.nan)
    area = delong(
        np.repeat([True, False], [len(one), len(other)]), np.concatenate([one, other]), LEVEL
    )
    return Membership(attack, as_estimate(area), rates, p_above_chance(area))


def as_estimate(area: Area) -> Estimate:
    """The area as an estimate with its interval."""
    if math.isnan(area.value) or math.isnan(area.low):
        return Estimate(None, why="one set has too few rows")
    return Estimate(area.value, area.low, area.high, LEVEL)


def p_above_chance(area: Area) -> float:
    """One-sided p-value of "the area is 0.5", with DeLong's error as a normal standard error."""
    from scipy.special import ndtr

    if not area.error > 0:
        return math.nan if math.isnan(area.value) or area.value == 0.5 else float(area.value < 0.5)
    return float(ndtr(-(area.value - 0.5) / area.error))


def compare_attacks(
    members: tuple[Floats, Floats], others: tuple[Floats, Floats]
) -> dict[str, float]:
    """How much better the first score separates members from others than the second: the paired
    difference of the areas on the same rows (DeLong)."""
    labels = np.repeat([True, False], [len(members[0]), len(others[0])])
    one, other = (np.concatenate([members[i], others[i]]) for i in (0, 1))
    difference = delong_difference(labels, one, other)
    return {
        "value": difference.value,
        "low": difference.low,
        "high": difference.high,
        "p": difference.p_value,
    }


def false_alarm_rates(others: int) -> tuple[float, ...]:
    """The usual false positive rates, and the smallest that this many others can show."""
    smallest = smallest_rate(others)
    return tuple(sorted({*RATES, smallest} if smallest < 1 else RATES, reverse=True))


def smallest_rate(others: int) -> float:
    """The false positive rate that this many rows without one false alarm show at 95 %:
    1 − 0.05^(1/m). 2,995 rows show 0.1 % (2406.16201)."""
    return 1 - (1 - LEVEL) ** (1 / others) if others else 1.0


def max_false_alarms(others: int, rate: float) -> int | None:
    """How many false alarms among ``others`` rows still show a rate of at most ``rate``, by Clopper
    and Pearson's upper limit at 95 % (one-sided); ``None`` if even no alarm does not show it."""
    # The upper end of a two-sided 90 % interval is the one-sided limit at 95 %.
    level = 2 * LEVEL - 1
    best = None
    for alarms in range(int(others * rate) + 1):
        if clopper_pearson(alarms, others, level)[1] > rate * (1 + 1e-9):
            break
        best = alarms
    return best


def attack_rate(members: Floats, others: Floats, rate: float) -> AttackRate:
    """The share of members above a threshold that few enough others exceed to show that their rate
    is at most ``rate``, with Clopper and Pearson's interval."""
    alarms = max_false_alarms(len(others), rate) if len(others) else None
    if alarms is None or not len(members):
        needed = math.ceil(math.log(1 - LEVEL) / math.log1p(-rate))
        why = f"needs {needed:,} rows that were not trained on; there are {len(others)}"
        return AttackRate(rate, Estimate(None, why=why))
    # Members that tie with an other are not found: no threshold separates them.
    threshold = np.sort(others)[::-1][alarms]
    hits = int((members > threshold).sum())
    low, high = clopper_pearson(hits, len(members), LEVEL)
    return AttackRate(rate, Estimate(hits / len(members), low, high, LEVEL))


def rows_for_area(area: float) -> int:
    """How many members and as many others show an ``area`` to be above chance with a power of 80 %:
    6 n (area − ½)² = (1.96 + 0.84)², by the variance of the rank test under chance."""
    return math.ceil(2.802**2 / (6 * (area - 0.5) ** 2))


def smallest_area(members: int, others: int) -> float:
    """The area that this many rows show to be above chance with a power of 80 %."""
    return min(1.0, 0.5 + 2.802 * math.sqrt((1 / members + 1 / others) / 12))


Bools = npt.NDArray[np.bool_]
FOLDS = 5
# Width of the rounded corner of the pinball loss, so that it has a slope everywhere.
SMOOTH = 0.02
RIDGE = 1e-3


@dataclass(frozen=True, slots=True)
class Tokens:
    """Two models' scores of the tokens of a text, in order: log p of each token by the ``tuned``
    and by the ``start`` model [t], and whether the tuned model ranks it first (``correct``)."""

    tuned: Floats
    start: Floats
    correct: Bools


def loss_scores(losses: Floats) -> Floats:
    """−loss."""
    return -np.asarray(losses, dtype=np.float64)


def ratio_scores(losses: Floats, start: Floats) -> Floats:
    """The base model's loss minus the tuned model's: the mean log ratio per token."""
    return np.asarray(start, dtype=np.float64) - np.asarray(losses, dtype=np.float64)


def error_zone_scores(texts: Sequence[Tokens]) -> Floats:
    """The error zone of each text [n] (2601.12104), in [0, 1].

    At the tokens that the tuned model gets wrong, Δ = log p tuned − log p start; the score is the
    upward share, Σ max(0, Δ) ÷ Σ |Δ|: the paper's ratio r of upward to downward sums as
    r ÷ (1 + r), which ranks rows the same way and stays finite. NaN for a text without an error.
    """
    scores = np.full(len(texts), np.nan)
    for at, text in enumerate(texts):
        wrong = ~text.correct
        changes = (text.tuned - text.start)[wrong]
        total = float(np.abs(changes).sum())
        if len(changes):
            scores[at] = float(np.maximum(changes, 0).sum()) / total if total > 0 else 0.5
    return scores


def normal_losses(losses: Floats) -> Floats:
    """log(e^loss − 1), for a class log((1 − p) ÷ p): losses near 0 spread out, and the distribution
    is nearly normal (Carlini and others 2022, 2112.03570)."""
    x = np.clip(np.asarray(losses, dtype=np.float64), 1e-7, 500.0)
    return np.asarray(x + np.log(-np.expm1(-x)))


def conditioned_scores(
    members: Floats, others: Floats, features: tuple[Floats, Floats], seed: int
) -> tuple[Floats, Floats]:
    """How far a row's loss lies below the losses of similar rows that the model never saw, for
    members [n] and others [m].

    The median and the quartiles of log(e^loss − 1) are fitted by quantile regression on the
    ``features`` ([n, d] of members, [m, d] of others) of the OTHERS only; the score is (median −
    own) ÷ half the quartiles' distance. Each row, member or other, is scored by a fit on four
    fifths of the others that does not contain it. Members and others are treated alike, so that
    without memorization their scores have the same distribution.
    """
    other_losses, member_losses = normal_losses(others), normal_losses(members)
    one, other = (np.asarray(part, dtype=np.float64) for part in features)
    centre, spread = other.mean(axis=0), other.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    one, other = (one - centre) / spread, (other - centre) / spread
    random = generator(seed, "conditioned losses")
    fold_of = random.permutation(np.arange(len(other_losses)) % FOLDS)
    fold_of_members = random.integers(FOLDS, size=len(member_losses))
    min_width = 0.25 * float(np.subtract(*np.quantile(other_losses, [0.75, 0.25]))) / 2 + 1e-9
    of_members, of_others = np.full(len(member_losses), np.nan), np.full(len(other_losses), np.nan)
    for fold in range(FOLDS):
        held_out, held_out_members = fold_of == fold, fold_of_members == fold
        if held_out.all():
            continue
        lines = [
            quantile_line(other[~held_out], other_losses[~held_out], q) for q in (0.25, 0.5, 0.75)
        ]
        for rows, losses, at, scores in (
            (other, other_losses, held_out, of_others),
            (one, member_losses, held_out_members, of_members),
        ):
            low, middle, high = (rows[at] @ line[:-1] + line[-1] for line in lines)
            scores[at] = (middle - losses[at]) / np.maximum((high - low) / 2, min_width)
    return of_members, of_others


def quantile_line(x: Floats, y: Floats, q: float) -> Floats:
    """Weights [d + 1], the bias last, of the linear ``q`` quantile of ``y`` [n] given ``x`` [n, d]
    (Koenker and Bassett 1978): they minimise the mean pinball loss, smoothed within 2 % of the
    standard deviation of ``y``, with a ridge of 1e-3 on the weights."""
    from scipy.optimize import minimize

    scale = float(np.std(y)) or 1.0
    target, width = (y - np.median(y)) / scale, SMOOTH
    n, start = len(y), np.zeros(x.shape[1] + 1)
    start[-1] = np.quantile(target, q)

    def value(line: Floats) -> tuple[float, Floats]:
        gap = target - x @ line[:-1] - line[-1]
        # q·u + w·log(1 + e^(−u/w)) is the pinball loss with a rounded corner.
        loss = q * gap + width * np.logaddexp(0, -gap / width)
        slope = q - 1 / (1 + np.exp(np.clip(gap / width, -500, 500)))
        total = float(loss.mean() + RIDGE * (line[:-1] ** 2).sum() / 2)
        gradient = -np.append(x.T @ slope, slope.sum()) / n
        gradient[:-1] += RIDGE * line[:-1]
        return total, gradient

    fitted = minimize(value, start, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    line = np.asarray(fitted.x, dtype=np.float64) * scale
    line[-1] += float(np.median(y))
    return line


SHOWN_ROWS = 10
TEXT_LENGTH = 160


@dataclass(frozen=True, slots=True)
class ExposedRow:
    """One row of the source with its ``risk``, and its text and label if they exist."""

    row: int
    risk: float
    text: str | None = None
    label: str | None = None


def most_exposed(
    rows: Ints, risk: Floats, texts: Sequence[str] | None, labels: Sequence[str | None] | None
) -> tuple[ExposedRow, ...]:
    """The ten rows of largest ``risk`` [n]; equal rows in the order of the source."""
    finite = np.flatnonzero(~np.isnan(risk))
    order = finite[np.lexsort((rows[finite], -risk[finite]))][:SHOWN_ROWS]
    return tuple(
        ExposedRow(
            int(rows[at]),
            float(risk[at]),
            None if texts is None else shorten(" ".join(texts[at].split()), TEXT_LENGTH),
            None if labels is None else labels[at],
        )
        for at in order
    )
