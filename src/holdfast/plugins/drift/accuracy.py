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
from holdfast.plugins.drift.watches import CONFIDENCE_LEVEL
from holdfast.stats.intervals import clopper_pearson, normal_quantile, wilson
from holdfast.stats.streams.means import Detector, share_above

# Fewer rows tell nothing of P(right | confidence), fewer labels nothing by a normal interval.
MIN_ROWS = 30
DRAWS = 400
BINS = 200
# The penalty on both, in rows' worth: what is calibrated already needs little. Of 1 to 40, errors
# on CR and TREC (25 divisions each) fell with it, and intervals were too narrow from 10 on.
PENALTY_ROWS = 5.0
# Of that on the level: more drew a model that is surer or less sure throughout than it is right
# (77 classes, right in 85 % at a confidence of a third) to a number that no label would give.
INTERCEPT_PENALTY = 0.1
NEWTON, HALVINGS, STEP_TOLERANCE = 20, 10, 1e-6  # steps
LOGIT_EDGE = 1e-6
# Reference rows that still count after they are weighed, below which nothing is said; of fewer than
# 60 rows half of them.
MIN_EFFECTIVE_SHARE, MIN_EFFECTIVE_ROWS = 0.1, 30.0
# Of new rows, that may lie where the reference has none.
MAX_OUTSIDE = 0.05
# What rows of a reference are rarely further from their nearest than.
NEAR_QUANTILE = 0.99
# Of draws on either side of the interval at 95 %.
TAIL = (1 - 0.95) / 2
# Of wrong answers, beyond what the reference leaves plausible, before rows are called harmful.
TOLERANCE = 0.02


def support_problem(weights: Floats, outside: float, new: int) -> str | None:
    """Why the reference says nothing of new rows, which do not lie where it has rows; ``None``
    where they do.

    ``outside`` is the share of ``new`` rows that are further from the reference than nearly all of
    its own rows are from each other; it counts as far as it is sure (Clopper and Pearson's lower
    limit at 95 %) and more than chance in choosing the reference explains: beside 30 rows of the
    same law a tenth lies outside. Of the importance ``weights`` [m] of the reference rows it is
    the effective number that counts, (Σw)² ÷ Σw².
    """
    effective_rows = float(weights.sum() ** 2 / max(float((weights**2).sum()), 1e-300))
    surely_outside = clopper_pearson(round(outside * new), new)[0] if new else 0.0
    if surely_outside > allowed_outside(len(weights)):
        return f"{100 * outside:.0f} % of the rows are unlike any row that it was judged by"
    if effective_rows < max(
        MIN_EFFECTIVE_SHARE * len(weights), min(MIN_EFFECTIVE_ROWS, len(weights) / 2)
    ):
        return (
            f"only {effective_rows:.0f} of the {len(weights)} rows that it was judged by "
            "are still like "
            "those that arrive"
        )
    return None


def edge_index(rows: int) -> int:
    """The place (0-based) in order of the distance, of so many ``rows``, beyond which new rows lie
    outside: of fewer than 100 the last."""
    return math.ceil(NEAR_QUANTILE * (rows - 1))


def allowed_outside(reference: int) -> float:
    """The largest share of new rows outside that does not speak against a reference of so many
    rows. The edge is a distance of half of them, and the share of the same law beyond the j-th
    largest of h is Beta(j, h − j + 1): 16 % are plausible beyond the last of 30."""
    half = reference - reference // 2
    return max(MAX_OUTSIDE, share_above(half - 1 - edge_index(half), half, CONFIDENCE_LEVEL))


def estimate_accuracy(
    confidence: Floats,
    correct: Floats,
    new: Floats,
    *,
    weights: Floats | None = None,
    support: str | None = None,
    seed: int = 0,
) -> Estimate:
    """The accuracy on rows of confidence ``new`` [n], from reference rows of ``confidence`` [m] in
    [0, 1] that were ``correct`` [m] (1 or 0), each counting by ``weights`` [m] (alike without).

    A reference row or a new one whose confidence or label is NaN is left out. No number, with the
    reason, below 30 of either, and where the ``support`` is gone.
    """
    known = np.isfinite(confidence) & np.isfinite(correct)
    known_confidence, known_correct = (
        confidence[known].astype(np.float64),
        correct[known].astype(np.float64),
    )
    known_weights = (
        np.ones(len(known_confidence)) if weights is None else weights[known].astype(np.float64)
    )
    new_confidence = new[np.isfinite(new)].astype(np.float64)
    if support is not None:
        return Estimate(None, why=support)
    if len(known_confidence) < MIN_ROWS:
        return Estimate(
            None, why=f"{len(known_confidence)} rows with a known answer are fewer than {MIN_ROWS}"
        )
    if len(new_confidence) < MIN_ROWS:
        return Estimate(None, why=f"{len(new_confidence)} rows are fewer than {MIN_ROWS}")
    random, n = generator(seed, "accuracy without labels"), len(known_confidence)
    draws = random.multinomial(n, np.full(n, 1 / n), DRAWS)
    counts = np.concatenate([np.ones((1, n)), draws])
    tables = fit_logistic(
        logit(known_confidence), known_correct, counts * (known_weights / known_weights.mean())
    )
    bin_logits, shares = _bins(logit(new_confidence))
    means = _expit(tables[:, :1] + tables[:, 1:] * bin_logits[None]) @ shares
    value = float(means[0])
    # How many of so many rows are right is a matter of chance even where each chance is known.
    sampling_noise = np.sqrt(
        means[1:] * (1 - means[1:]) / len(new_confidence)
    ) * random.standard_normal(DRAWS)
    low, high = np.clip(np.quantile(means[1:] + sampling_noise, [TAIL, 1 - TAIL]), 0.0, 1.0)
    return Estimate(value, min(float(low), value), max(float(high), value))


def _bins(values: Floats) -> tuple[Floats, Floats]:
    """Values in at most ``BINS`` groups of like ones: the mean of each and its share."""
    order = np.sort(values)
    ends = np.unique(np.linspace(0, len(order), min(BINS, len(order)) + 1).round().astype(int))
    sizes = np.diff(ends)
    return np.add.reduceat(order, ends[:-1]) / sizes, sizes / len(order)


def fit_logistic(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Logistic regressions of ``y`` [m] on ``x`` [m], one for each line of ``weights`` [k, m]:
    intercepts and slopes [k, 2], by Newton's steps; they are drawn towards 0 and 1 (a
    calibrated confidence, on the logit scale) by a penalty worth ``PENALTY_ROWS`` rows, the
    intercept by a tenth of that. A step that does not pay is halved: far from the top Newton's
    overshoot."""
    penalty = np.array([INTERCEPT_PENALTY * PENALTY_ROWS, PENALTY_ROWS])
    coefficients = np.tile([0.0, 1.0], (len(weights), 1))
    loss = _loss(coefficients, x, y, weights, penalty)
    for _ in range(NEWTON):
        probability = _expit(coefficients[:, :1] + coefficients[:, 1:] * x[None])
        residual, curvature = (
            weights * (y[None] - probability),
            weights * probability * (1 - probability),
        )
        slope0 = residual.sum(axis=1) - penalty[0] * coefficients[:, 0]
        slope1 = (residual * x).sum(axis=1) - penalty[1] * (coefficients[:, 1] - 1)
        a = curvature.sum(axis=1) + penalty[0]
        b, d = (curvature * x).sum(axis=1), (curvature * x * x).sum(axis=1) + penalty[1]
        det = np.maximum(a * d - b * b, 1e-12)
        step = np.stack([(d * slope0 - b * slope1) / det, (a * slope1 - b * slope0) / det], axis=1)
        step = np.clip(step, -2.0, 2.0)
        for _ in range(HALVINGS):
            new_loss = _loss(coefficients + step, x, y, weights, penalty)
            worse = new_loss > loss
            if not worse.any():
                break
            step[worse] /= 2
        else:
            step[worse], new_loss = 0.0, np.where(worse, loss, new_loss)
        coefficients, loss = coefficients + step, new_loss
        if np.abs(step).max(initial=0.0) < STEP_TOLERANCE:
            break
    return coefficients


def _loss(coefficients: Floats, x: Floats, y: Floats, weights: Floats, penalty: Floats) -> Floats:
    """What ``fitted`` makes small, of each line [k]."""
    line = coefficients[:, :1] + coefficients[:, 1:] * x[None]
    rows = weights * (np.logaddexp(0.0, line) - y[None] * line)
    return np.asarray(rows.sum(axis=1) + ((coefficients - [0.0, 1.0]) ** 2 @ penalty) / 2)


def logit(probability: Floats) -> Floats:
    """log p ÷ (1 − p), of a chance kept ``EDGE`` from 0 and 1."""
    p = np.clip(np.asarray(probability, dtype=np.float64), LOGIT_EDGE, 1 - LOGIT_EDGE)
    return np.asarray(np.log(p) - np.log1p(-p))


def _expit(line: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(line / 2)))


def powered_accuracy(correct: Floats, confidence: Floats, others: Floats) -> Estimate:
    """Prediction-powered accuracy (PPI++, 2311.01453) of ``n`` labelled rows, drawn evenly from the
    traffic, and ``N`` others.

        λ · mean(confidence of the others) + mean(correct − λ · confidence of the labelled)

    ``correct`` [n] is 1 or 0, ``confidence`` [n] the predicted probability there, and ``others``
    [N] that of the rows without a label. The confidence need not be calibrated: its error is
    measured on the labelled rows. λ in [0, 1] minimises the variance, Cov(correct, confidence) ÷
    ((1 + n/N) Var(confidence)); at 0 it is the mean of the labels alone, so the estimate is never
    worse than that mean. Below 30 labels, or where all are equal, it is that mean with Wilson's
    interval, since a normal one is too narrow. No label: no number.
    """
    n, n_others = len(correct), len(others)
    if not n:
        return Estimate(None, why="no row has a label")
    known = np.isfinite(confidence)
    if n < MIN_ROWS or not known.all() or not n_others or 0 in (correct.var(), confidence.var()):
        low, high = wilson(float(correct.sum()), n)
        return Estimate(float(correct.mean()), low, high, note="of the labels alone")
    known_others = others[np.isfinite(others)]
    pooled = np.concatenate([confidence, known_others])
    cov = float(np.cov(correct, confidence)[0, 1])
    weight = min(1.0, max(0.0, cov / ((1 + n / n_others) * float(pooled.var(ddof=1)))))
    residual = correct - weight * confidence
    mean = weight * float(known_others.mean()) + float(residual.mean())
    error = math.sqrt(
        weight**2 * float(known_others.var(ddof=1)) / len(known_others)
        + float(residual.var(ddof=1)) / n
    )
    half = normal_quantile(0.95) * error
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half))


@dataclass(frozen=True, slots=True, eq=False)
class HarmWatch:
    """Is the model wrong more often than on the reference by more than ``TOLERANCE``? Drift without
    a loss of accuracy raises no alarm here (Podkopaev and Ramdas, 2110.06177).

    The bound is the largest error rate that the labelled reference rows leave plausible, plus the
    tolerance. Labelled rows are tested against it sequentially, in the order in which labels come.
    """

    allowed: float
    detector: Detector
    rows: int = 0
    wrong: int = 0

    @classmethod
    def of_reference(cls, correct: Floats) -> HarmWatch | None:
        """Of the reference rows that were ``correct`` (1 or 0; NaN unknown); ``None`` below 30."""
        known = correct[np.isfinite(correct)]
        if len(known) < MIN_ROWS:
            return None
        plausible_error = share_above(int((known == 0).sum()), len(known), CONFIDENCE_LEVEL)
        allowed = min(plausible_error + TOLERANCE, 1 - 1e-6)
        return cls(allowed, Detector.of_bounds(np.array([allowed])))

    def add(self, wrong: Floats, limit: float) -> tuple[HarmWatch, int | None]:
        """After more labelled rows (1 wrong, 0 right) [n], up to the first at which the evidence of
        harm reaches ``limit``, labelled rows between alarms."""
        errors = np.asarray(wrong, dtype=np.float64)
        detector, at = self.detector.add(errors[:, None], limit)
        rows, n_wrong = self.rows + len(errors[:at]), self.wrong + int(errors[:at].sum())
        return replace(self, detector=detector, rows=rows, wrong=n_wrong), at

    def to_json(self) -> dict[str, Any]:
        return {
            "tolerance": TOLERANCE,
            "detector": self.detector.to_json(),
            "rows": self.rows,
            "wrong": self.wrong,
        }

    def with_saved_state(self, saved: Mapping[str, Any]) -> HarmWatch:
        """This watch, of the same reference, with what ``to_json`` wrote down."""
        detector = Detector.from_json(saved["detector"])
        return replace(self, detector=detector, rows=int(saved["rows"]), wrong=int(saved["wrong"]))
