"""How right the model is about new rows: by how sure it is of its answers, and by few labels.

*Without labels* by confidence-based performance estimation (2505.05295): where the confidence c(x)
is calibrated, the mean of P(right | c(x)) over new rows is the accuracy on them. Here P(right | c)
is fitted to the reference rows, whose labels are known, and it holds for new rows only as far as
these are alike: where they have moved but are still among rows that the reference has, each
reference row counts by how much likelier its vector is among the new ones (PAPE, 2401.08348). Where
they have left it, nothing in the reference says how right the model is there, and the estimate is
**called invalid**. The interval holds the share that would be found right if new rows were
labelled: percentiles over draws of reference rows (bootstrap) and over the luck of the new ones.

*By labels*: the accuracy by few of them beside many answers, and whether rows have become harmful,
that is, whether the model is wrong more often than it may be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from holdfast.core.records import Estimate, Floats
from holdfast.core.seeds import generator
from holdfast.plugins.drift.watches import SURE
from holdfast.stats.intervals import clopper_pearson, normal_quantile, wilson
from holdfast.stats.streams.means import Detector, share_above

# Fewer rows tell nothing of P(right | confidence), fewer labels nothing by a normal interval.
FEWEST = 30
DRAWS = 400
BINS = 200
# The penalty on both, in rows' worth: what is calibrated already needs little. Of 1 to 40, errors
# on CR and TREC (25 divisions each) fell with it, and intervals were too narrow from 10 on.
CALM = 5.0
# Of that on the level: more drew a model that is surer or less sure throughout than it is right
# (77 classes, right in 85 % at a confidence of a third) to a number that no label would give.
LEVEL = 0.1
NEWTON, HALVINGS, CLOSE = 20, 10, 1e-6  # steps
EDGE = 1e-6
# Reference rows that still count after they are weighed, below which nothing is said; of fewer than
# 60 rows half of them.
LEAST_SHARE, LEAST_ROWS = 0.1, 30.0
# Of new rows, that may lie where the reference has none.
OUTSIDE = 0.05
# What rows of a reference are rarely further from their nearest than.
NEAR = 0.99
# Of draws on either side of the interval at 95 %.
TAIL = (1 - 0.95) / 2
# Of wrong answers, beyond what the reference leaves plausible, before rows are called harmful.
TOLERANCE = 0.02


def support_of(weights: Floats, outside: float, new: int) -> str | None:
    """Why the reference says nothing of new rows, which do not lie where it has rows; ``None``
    where they do.

    ``outside`` is the share of ``new`` rows that are further from the reference than nearly all of
    its own rows are from each other; it counts as far as it is sure (Clopper and Pearson's lower
    limit at 95 %) and more than chance in choosing the reference explains: beside 30 rows of the
    same law a tenth lies outside. Of the importance ``weights`` [m] of the reference rows it is
    the effective number that counts, (Σw)² ÷ Σw².
    """
    counting = float(weights.sum() ** 2 / max(float((weights**2).sum()), 1e-300))
    sure = clopper_pearson(round(outside * new), new)[0] if new else 0.0
    if sure > allowed_outside(len(weights)):
        return f"{100 * outside:.0f} % of the rows are unlike any row that it was judged by"
    if counting < max(LEAST_SHARE * len(weights), min(LEAST_ROWS, len(weights) / 2)):
        return (
            f"only {counting:.0f} of the {len(weights)} rows that it was judged by are still like "
            "those that arrive"
        )
    return None


def edge_place(rows: int) -> int:
    """The place (0-based) in order of the distance, of so many ``rows``, beyond which new rows lie
    outside: of fewer than 100 the last."""
    return math.ceil(NEAR * (rows - 1))


def allowed_outside(reference: int) -> float:
    """The largest share of new rows outside that does not speak against a reference of so many
    rows. The edge is a distance of half of them, and the share of the same law beyond the j-th
    largest of h is Beta(j, h − j + 1): 16 % are plausible beyond the last of 30."""
    half = reference - reference // 2
    return max(OUTSIDE, share_above(half - 1 - edge_place(half), half, SURE))


def estimated_accuracy(
    confidence: Floats,
    right: Floats,
    new: Floats,
    *,
    weights: Floats | None = None,
    support: str | None = None,
    seed: int = 0,
) -> Estimate:
    """The accuracy on rows of confidence ``new`` [n], from reference rows of ``confidence`` [m] in
    [0, 1] that were ``right`` [m] (1 or 0), each counting by ``weights`` [m] (alike without).

    A reference row or a new one whose confidence or label is NaN is left out. No number, with the
    reason, below 30 of either, and where the ``support`` is gone.
    """
    known = np.isfinite(confidence) & np.isfinite(right)
    sure, hit = confidence[known].astype(np.float64), right[known].astype(np.float64)
    weigh = np.ones(len(sure)) if weights is None else weights[known].astype(np.float64)
    given = new[np.isfinite(new)].astype(np.float64)
    if support is not None:
        return Estimate(None, why=support)
    if len(sure) < FEWEST:
        return Estimate(None, why=f"{len(sure)} rows with a known answer are fewer than {FEWEST}")
    if len(given) < FEWEST:
        return Estimate(None, why=f"{len(given)} rows are fewer than {FEWEST}")
    random, n = generator(seed, "accuracy without labels"), len(sure)
    draws = random.multinomial(n, np.full(n, 1 / n), DRAWS)
    counts = np.concatenate([np.ones((1, n)), draws])
    tables = fitted(logit(sure), hit, counts * (weigh / weigh.mean()))
    places, shares = _bins(logit(given))
    means = _expit(tables[:, :1] + tables[:, 1:] * places[None]) @ shares
    value = float(means[0])
    # How many of so many rows are right is a matter of chance even where each chance is known.
    luck = np.sqrt(means[1:] * (1 - means[1:]) / len(given)) * random.standard_normal(DRAWS)
    low, high = np.clip(np.quantile(means[1:] + luck, [TAIL, 1 - TAIL]), 0.0, 1.0)
    return Estimate(value, min(float(low), value), max(float(high), value))


def _bins(values: Floats) -> tuple[Floats, Floats]:
    """Values in at most ``BINS`` groups of like ones: the mean of each and its share."""
    order = np.sort(values)
    ends = np.unique(np.linspace(0, len(order), min(BINS, len(order)) + 1).round().astype(int))
    sizes = np.diff(ends)
    return np.add.reduceat(order, ends[:-1]) / sizes, sizes / len(order)


def fitted(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Logistic regressions of ``y`` [m] on ``x`` [m], one for each line of ``weights`` [k, m]:
    intercepts and slopes [k, 2], by Newton's steps; they are drawn towards 0 and 1 (a
    calibrated confidence, on the logit scale) by a penalty worth ``CALM`` rows, the intercept by a
    tenth of that. A step that does not pay is halved: far from the top Newton's overshoot."""
    pull = np.array([LEVEL * CALM, CALM])
    table = np.tile([0.0, 1.0], (len(weights), 1))
    loss = _loss(table, x, y, weights, pull)
    for _ in range(NEWTON):
        chance = _expit(table[:, :1] + table[:, 1:] * x[None])
        gap, bend = weights * (y[None] - chance), weights * chance * (1 - chance)
        slope0 = gap.sum(axis=1) - pull[0] * table[:, 0]
        slope1 = (gap * x).sum(axis=1) - pull[1] * (table[:, 1] - 1)
        a = bend.sum(axis=1) + pull[0]
        b, d = (bend * x).sum(axis=1), (bend * x * x).sum(axis=1) + pull[1]
        det = np.maximum(a * d - b * b, 1e-12)
        step = np.stack([(d * slope0 - b * slope1) / det, (a * slope1 - b * slope0) / det], axis=1)
        step = np.clip(step, -2.0, 2.0)
        for _ in range(HALVINGS):
            after = _loss(table + step, x, y, weights, pull)
            worse = after > loss
            if not worse.any():
                break
            step[worse] /= 2
        else:
            step[worse], after = 0.0, np.where(worse, loss, after)
        table, loss = table + step, after
        if np.abs(step).max(initial=0.0) < CLOSE:
            break
    return table


def _loss(table: Floats, x: Floats, y: Floats, weights: Floats, pull: Floats) -> Floats:
    """What ``fitted`` makes small, of each line [k]."""
    line = table[:, :1] + table[:, 1:] * x[None]
    rows = weights * (np.logaddexp(0.0, line) - y[None] * line)
    return np.asarray(rows.sum(axis=1) + ((table - [0.0, 1.0]) ** 2 @ pull) / 2)


def logit(chance: Floats) -> Floats:
    """log p ÷ (1 − p), of a chance kept ``EDGE`` from 0 and 1."""
    p = np.clip(np.asarray(chance, dtype=np.float64), EDGE, 1 - EDGE)
    return np.asarray(np.log(p) - np.log1p(-p))


def _expit(line: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(line / 2)))


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
        detector = Detector.from_json(said["detector"])
        return replace(self, detector=detector, rows=int(said["rows"]), wrong=int(said["wrong"]))
