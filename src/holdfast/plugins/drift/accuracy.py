"""Accuracy on new rows: estimated from confidence without labels, and measured with a few labels.

*Without labels*, by confidence-based performance estimation (2505.05295): where the confidence c(x)
is calibrated, the mean of P(correct | c(x)) over new rows is the accuracy on them. Here P(correct |
c) is fitted to the reference rows, whose labels are known. It holds for new rows only as far as
they resemble the reference. Where new rows have moved within the support of the reference, each
reference row is weighted by how likely its vector is among the new ones (PAPE, 2401.08348). Where
they have left the support, the reference says nothing about the accuracy there, and the estimate is
**invalid**. The interval covers the share of correct predictions that labelling the new rows would
give: percentiles over draws of reference rows (bootstrap) and over the sampling error of the new
rows.

*With labels*: the accuracy from a few labels together with many predictions, and whether the rows
have become harmful, that is, whether the error rate exceeds the allowed one.
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
from holdfast.stats.intervals import clopper_pearson, wilson
from holdfast.stats.streams.means import Detector, share_above

# Fewer rows cannot fit P(correct | confidence); with fewer labels a normal interval is invalid.
MIN_ROWS = 30
DRAWS = 400
BINS = 200
# The penalty on both coefficients, in rows. Of the values 1 to 40, errors on CR and TREC (25 splits
# each) fell as it grew, and intervals were too narrow from 10 on.
PENALTY_ROWS = 5.0
# The share of that penalty on the intercept. A larger one biased the estimate for a model that is
# over- or underconfident throughout (77 classes, 85 % correct at a confidence of a third).
INTERCEPT_PENALTY = 0.1
NEWTON, HALVINGS, STEP_TOLERANCE = 20, 10, 1e-6  # steps
LOGIT_EDGE = 1e-6
# The least effective number of reference rows after weighting; half of them below 60 rows.
MIN_EFFECTIVE_SHARE, MIN_EFFECTIVE_ROWS = 0.1, 30.0
# The largest share of new rows that may lie where the reference has no rows.
MAX_OUTSIDE = 0.05
# Quantile of the nearest-neighbour distance beyond which a row is outside.
NEAR_QUANTILE = 0.99
# The share of draws beyond each end of the 95 % interval.
TAIL = (1 - 0.95) / 2
# How far the error rate may exceed what the reference leaves plausible before rows are harmful.
TOLERANCE = 0.02


def support_problem(weights: Floats, outside: float, new: int) -> str | None:
    """Why the reference does not support an accuracy estimate for the new rows; ``None`` where it
    does.

    ``outside`` is the share of ``new`` rows that are further from the reference than nearly all of
    its own rows are from each other. Its lower limit (Clopper and Pearson, 95 %) counts, and only
    beyond what the sampling of the reference explains: with 30 reference rows, a tenth of new rows
    of the same distribution lies outside. For the importance ``weights`` [m] of the reference rows
    the effective number counts, (Σw)² ÷ Σw².
    """
    effective_rows = float(weights.sum() ** 2 / max(float((weights**2).sum()), 1e-300))
    surely_outside = clopper_pearson(round(outside * new), new)[0] if new else 0.0
    if surely_outside > allowed_outside(len(weights)):
        return f"{100 * outside:.0f} % of the new rows are unlike any reference row"
    if effective_rows < max(
        MIN_EFFECTIVE_SHARE * len(weights), min(MIN_EFFECTIVE_ROWS, len(weights) / 2)
    ):
        return (
            f"only {effective_rows:.0f} of the {len(weights)} reference rows still resemble "
            "the new rows (effective sample size)"
        )
    return None


def edge_index(rows: int) -> int:
    """The 0-based position, in order of distance, of the reference row beyond which new rows lie
    outside; with fewer than 100 ``rows``, the last one."""
    return math.ceil(NEAR_QUANTILE * (rows - 1))


def allowed_outside(reference: int) -> float:
    """The largest share of new rows outside that is plausible for a reference with this number of
    rows. The edge is a distance within one half of them, and for the same distribution the share
    beyond the j-th largest of h is Beta(j, h − j + 1): with 30 rows in that half, 16 % are
    plausible."""
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
    """Estimate the accuracy on rows with confidence ``new`` [n], without labels.

    It is fitted to reference rows with ``confidence`` [m] in [0, 1] that were ``correct`` [m] (1 or
    0), weighted by ``weights`` [m] (equal by default). Rows whose confidence or label is NaN are
    left out. The estimate is undefined, with the reason, below 30 rows of either set and where
    ``support`` names a problem.
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
            None,
            why=f"{len(known_confidence)} labelled reference rows; at least {MIN_ROWS} are needed",
        )
    if len(new_confidence) < MIN_ROWS:
        why = f"{len(new_confidence)} new rows with a confidence; at least {MIN_ROWS} are needed"
        return Estimate(None, why=why)
    random, n = generator(seed, "accuracy without labels"), len(known_confidence)
    draws = random.multinomial(n, np.full(n, 1 / n), DRAWS)
    counts = np.concatenate([np.ones((1, n)), draws])
    tables = fit_logistic(
        logit(known_confidence), known_correct, counts * (known_weights / known_weights.mean())
    )
    bin_logits, shares = _bins(logit(new_confidence))
    means = _expit(tables[:, :1] + tables[:, 1:] * bin_logits[None]) @ shares
    value = float(means[0])
    # The number of correct rows varies by chance even where each probability is known.
    sampling_noise = np.sqrt(
        means[1:] * (1 - means[1:]) / len(new_confidence)
    ) * random.standard_normal(DRAWS)
    low, high = np.clip(np.quantile(means[1:] + sampling_noise, [TAIL, 1 - TAIL]), 0.0, 1.0)
    return Estimate(value, min(float(low), value), max(float(high), value))


def _bins(values: Floats) -> tuple[Floats, Floats]:
    """Group the values into at most ``BINS`` bins of neighbours: the mean of each bin and its
    share."""
    order = np.sort(values)
    ends = np.unique(np.linspace(0, len(order), min(BINS, len(order)) + 1).round().astype(int))
    sizes = np.diff(ends)
    return np.add.reduceat(order, ends[:-1]) / sizes, sizes / len(order)


def fit_logistic(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Fit logistic regressions of ``y`` [m] on ``x`` [m], one for each row of ``weights`` [k, m],
    by Newton's method: intercepts and slopes [k, 2].

    A penalty worth ``PENALTY_ROWS`` rows draws the slopes towards 1, and a tenth of it draws the
    intercepts towards 0 (a calibrated confidence on the logit scale). A step that does not lower
    the loss is halved: far from the optimum Newton's method overshoots.
    """
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
    """The penalized loss of each regression [k], which ``fit_logistic`` minimizes."""
    line = coefficients[:, :1] + coefficients[:, 1:] * x[None]
    rows = weights * (np.logaddexp(0.0, line) - y[None] * line)
    return np.asarray(rows.sum(axis=1) + ((coefficients - [0.0, 1.0]) ** 2 @ penalty) / 2)


def logit(probability: Floats) -> Floats:
    """log p ÷ (1 − p), with p clipped to ``LOGIT_EDGE`` from 0 and 1."""
    p = np.clip(np.asarray(probability, dtype=np.float64), LOGIT_EDGE, 1 - LOGIT_EDGE)
    return np.asarray(np.log(p) - np.log1p(-p))


def _expit(line: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(line / 2)))


def powered_accuracy(correct: Floats, confidence: Floats, others: Floats) -> Estimate:
    """Prediction-powered accuracy (PPI++, 2311.01453) from ``n`` labelled rows, drawn uniformly
    from the traffic, and ``N`` unlabelled rows.

        λ · mean(confidence of the others) + mean(correct − λ · confidence of the labelled)

    ``correct`` [n] is 1 or 0, ``confidence`` [n] the predicted probability there, and ``others``
    [N] that of the rows without a label. The confidence need not be calibrated: its error is
    measured on the labelled rows. λ in [0, 1] minimizes the variance, Cov(correct, confidence) ÷
    ((1 + n/N) Var(confidence)). At λ = 0 it is the mean of the labels, so the estimate is never
    worse than that mean. The interval is Wilson's, with as many rows as would give a mean of labels
    this standard error; a normal one from 30 labels covered an accuracy of 89 % in 87 % of samples.
    Below 30 labels, or where all are equal, it is the mean of the labels with Wilson's interval.
    Without labels it is undefined.
    """
    n, n_others = len(correct), int(np.isfinite(others).sum())
    if not n:
        return Estimate(None, why="no row has a label")
    known = np.isfinite(confidence)
    if n < MIN_ROWS or not known.all() or n_others < 2 or 0 in (correct.var(), confidence.var()):
        low, high = wilson(float(correct.sum()), n)
        return Estimate(float(correct.mean()), low, high, note="from the labels only")
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
    # Labels that equal the confidence would have no error.
    rows = float(correct.var(ddof=1)) / error**2 if error else n
    mean = min(1.0, max(0.0, mean))
    return Estimate(mean, *wilson(mean * rows, rows))


@dataclass(frozen=True, slots=True, eq=False)
class HarmWatch:
    """Sequential test for harm: does the error rate exceed that of the reference by more than
    ``TOLERANCE``? Drift without a loss of accuracy raises no alarm here (Podkopaev and Ramdas,
    2110.06177).

    The bound is the largest error rate that the labelled reference rows leave plausible, plus the
    tolerance. Labelled rows are tested against it in the order in which the labels arrive.
    """

    allowed: float
    detector: Detector
    rows: int = 0
    wrong: int = 0

    @classmethod
    def of_reference(cls, correct: Floats) -> HarmWatch | None:
        """Build the test from reference rows that were ``correct`` (1 or 0; NaN unknown); ``None``
        below 30."""
        known = correct[np.isfinite(correct)]
        if len(known) < MIN_ROWS:
            return None
        plausible_error = share_above(int((known == 0).sum()), len(known), CONFIDENCE_LEVEL)
        allowed = min(plausible_error + TOLERANCE, 1 - 1e-6)
        return cls(allowed, Detector.of_bounds(np.array([allowed])))

    def add(self, wrong: Floats, limit: float) -> tuple[HarmWatch, int | None]:
        """The test after more labelled rows [n] (1 wrong, 0 correct), up to the first row at which
        the evidence of harm reaches ``limit``, in labelled rows between alarms."""
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
        """This watch, with the same reference, in the state that ``to_json`` stored."""
        detector = Detector.from_json(saved["detector"])
        return replace(self, detector=detector, rows=int(saved["rows"]), wrong=int(saved["wrong"]))
