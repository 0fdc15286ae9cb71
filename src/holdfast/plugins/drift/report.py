"""Comparison of new rows with the reference: whether they differ, in what, by how much, the
accuracy on them, and since which row.

The size of a difference: how well a classifier separates the two sets, how likely each reference
row is among the new ones (importance weights), and which new rows lie outside the support of the
reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.core.records import Estimate, Floats, Ints, to_json
from holdfast.core.seeds import generator
from holdfast.models.probes.probe import stratified_folds
from holdfast.plugins.drift.accuracy import (
    TOLERANCE,
    HarmWatch,
    edge_index,
    estimate_accuracy,
    fit_logistic,
    logit,
    powered_accuracy,
    support_problem,
)
from holdfast.plugins.drift.monitor import ROWS_BETWEEN_ALARMS, DriftMonitor
from holdfast.plugins.drift.rows import (
    CONFIDENCE,
    UNPREDICTED,
    DriftRows,
    DriftWord,
    Reference,
    changed_words,
    word_row_counts,
)
from holdfast.plugins.drift.vectors import shrunken_precision
from holdfast.quality.two_samples import proportions_p_value
from holdfast.stats.auc import delong
from holdfast.stats.intervals import normal_quantile, rate_gap, wilson

FOLDS = 5
MIN_ROWS = 20
# Unit vectors that are no further apart are the same row, in the precision that is stored.
SAME_DISTANCE = 2e-3
# The largest importance weight of a row.
MAX_WEIGHT = 20.0
NOT_CORRECT_OR_WRONG = "predictions of this task are not correct or wrong"


@dataclass(frozen=True, slots=True, eq=False)
class VectorComparison:
    """The comparison of two sets of vectors. ``area`` is the probability that a new row scores
    higher than a reference row (AUC; 0.5: no difference). ``share`` is the share of new rows by
    which the two sets differ (a lower estimate of their total variation). ``old_scores`` [m] and
    ``scores`` [n] are the rows' scores, higher for new rows. ``weights`` [m] are the importance
    weights of the reference rows, mean 1. ``outside`` [n] says whether a new row lies where the
    reference has no rows."""

    area: Estimate
    share: Estimate
    old_scores: Floats
    scores: Floats
    weights: Floats
    outside: Ints


def compare_vectors(reference: Floats, new: Floats) -> VectorComparison | None:
    """Compare ``reference`` vectors [m, d] with ``new`` ones [n, d]; ``None`` where either has
    fewer than 20 rows.

    Each row is scored by a linear discriminant that was fitted without it (5 folds).
    """
    m, n = len(reference), len(new)
    if min(m, n) < MIN_ROWS:
        return None
    x = np.concatenate([reference, new]).astype(np.float64)
    y = np.repeat([0, 1], [m, n])
    folds = stratified_folds(y, FOLDS, 0)
    # A row in both sets would get the wrong score through its duplicate in the other set, unless
    # both are in one fold.
    nearest, distance = _nearest(reference, new)
    duplicate = distance < SAME_DISTANCE
    tied = folds.copy()
    tied[m:][duplicate] = folds[:m][nearest[duplicate]]
    # Unless that puts every new row in one fold, as of a service that is sent one text only.
    if np.ptp(tied[m:]):
        folds = tied
    scores = np.zeros(m + n)
    for fold in range(FOLDS):
        inside = folds != fold
        old, new_train = x[inside & (y == 0)], x[inside & (y == 1)]
        then, now = old.mean(axis=0), new_train.mean(axis=0)
        direction = shrunken_precision(np.concatenate([old - then, new_train - now])) @ (now - then)
        scores[folds == fold] = (x[folds == fold] - (then + now) / 2) @ direction
    before, after = scores[:m], scores[m:]
    area, share = rank_area(before, after), _differing_share(before, after)
    return VectorComparison(
        area, share, before, after, _importance_weights(scores, y), rows_outside(reference, new)
    )


def rank_area(old: Floats, new: Floats, level: float = 0.95) -> Estimate:
    """The area under the ROC curve (AUC) of cross-fitted scores. Its interval is DeLong's, widened
    by √2: scores of different folds are correlated, since their fits share rows, as in
    ``quality.two_samples``."""
    labels = np.repeat([False, True], [len(old), len(new)])
    area = delong(labels, np.concatenate([old, new]), level)
    value, error = area.value, area.error
    if not error > 0:
        return Estimate(value, area.low, area.high, level)
    at = float(logit(np.array(value)))
    half = np.sqrt(2) * normal_quantile(level) * error / max(value * (1 - value), 1e-9)
    ends = 1 / (1 + np.exp(-np.array([at - half, at + half])))
    return Estimate(value, float(ends[0]), float(ends[1]), level)


def _differing_share(old: Floats, new: Floats) -> Estimate:
    """The share of new rows that the classifier calls new, minus the share of reference rows that
    it calls new. Each row counts half in Newcombe's interval, since scores of different folds are
    correlated (see ``rank_area``)."""
    hits, false = int((new > 0).sum()), int((old > 0).sum())
    low, high = rate_gap(hits / 2, len(new) / 2, false / 2, len(old) / 2)
    gap = hits / len(new) - false / len(old)
    return Estimate(max(0.0, gap), max(0.0, low), max(0.0, high))


def _importance_weights(scores: Floats, y: Ints) -> Floats:
    """How likely each reference row [m] is among the new rows: the odds of a logistic regression on
    the cross-fitted scores, at most ``MAX_WEIGHT``, with mean 1."""
    spread = max(float(scores.std()), 1e-12)
    scaled = (scores - scores.mean()) / spread
    is_reference = y == 0
    coefficients = fit_logistic(scaled, y.astype(np.float64), np.ones((1, len(y))))[0]
    odds = np.exp(np.clip(coefficients[0] + coefficients[1] * scaled[is_reference], -30, 30))
    odds = np.minimum(odds * is_reference.sum() / max(1, len(y) - is_reference.sum()), MAX_WEIGHT)
    return np.asarray(odds / max(float(odds.mean()), 1e-300))


def rows_outside(reference: Floats, new: Floats, seed: int = 0) -> Ints:
    """Which new rows [n] (0 or 1) lie outside the support of the reference: further from their
    nearest row of one half of the reference than 99 % of the other half are (than all of it, where
    that half has fewer than 100 rows). The distance is Euclidean; for vectors of equal length it
    orders rows as the cosine does."""
    order = generator(seed, "support").permutation(len(reference))
    base, rest = reference[order[: len(order) // 2]], reference[order[len(order) // 2 :]]
    limit = float(np.sort(_nearest(base, rest)[1])[edge_index(len(rest))])
    return (_nearest(base, new)[1] > limit).astype(np.int64)


def _nearest(base: Floats, rows: Floats) -> tuple[Ints, Floats]:
    """The index of the nearest row of ``base`` to each row [n], and the distance to it."""
    base_rows, new_rows = base.astype(np.float64), rows.astype(np.float64)
    squares = (base_rows**2).sum(axis=1)[None] + (new_rows**2).sum(axis=1)[:, None]
    squares = np.maximum(squares - 2 * new_rows @ base_rows.T, 0)
    nearest = squares.argmin(axis=1)
    return nearest, np.sqrt(squares[np.arange(len(nearest)), nearest])


# The probability of reporting a difference where there is none, over all tests together.
ERROR_LEVEL = 0.01
# More rows make the classifier slower, but not more accurate.
MAX_CLASSIFIER_ROWS = 2000
MAX_EXAMPLES = 5


@dataclass(frozen=True, slots=True, eq=False)
class DriftReport:
    """The result of ``compare_rows``. ``changed`` lists the aspects that differ significantly
    (``inputs``, ``classes``, or the name of a monitored statistic); ``alarms`` say since when, if
    the rows are in the order in which they arrived.

    ``classes`` holds the share of each predicted class in the reference (``then``) and in the new
    rows (``now``). ``facts`` holds the monitored statistics by name: ``then`` and ``now`` are
    medians, ``higher`` is the probability that a new row has a larger value than a reference row
    (0.5: no difference), and ``moved`` says whether that is significant.
    """

    rows: int
    reference: Reference
    changed: Sequence[str]
    vector_comparison: VectorComparison | None
    classes: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Mapping[str, Any]]
    accuracy: Mapping[str, Any]
    harm: Mapping[str, Any] | None
    terms: Sequence[DriftWord]
    examples: Sequence[Mapping[str, Any]]
    monitor: DriftMonitor

    @property
    def verdict(self) -> str:
        """``alike`` or ``differ``; ``harmful`` where labels show that the model is worse."""
        if self.harm is not None and self.harm["harmful"]:
            return "harmful"
        return "differ" if self.changed else "alike"

    def to_json(self) -> dict[str, Any]:
        apart, inputs = self.vector_comparison, None
        if apart is not None:
            outside = float(apart.outside.mean())
            inputs = {"told_apart": apart.area, "share": apart.share, "outside": outside}
        block = {
            "verdict": self.verdict,
            "rows": self.rows,
            "reference": {"rows": len(self.reference), "what": self.reference.description},
            "differ": self.changed,
            "inputs": inputs,
            "classes": self.classes,
            "facts": self.facts,
            "accuracy": self.accuracy,
            "harm": self.harm,
            "alarms": self.monitor.alarms,
            "terms": self.terms,
            "examples": self.examples,
            "unwatched": self.monitor.unwatched,
        }
        return dict(to_json(block))


def compare_rows(
    reference: Reference,
    new: DriftRows,
    *,
    errors: Floats | None = None,
    between: int = ROWS_BETWEEN_ALARMS,
) -> DriftReport:
    """Compare ``new`` rows, in the order in which they came, with the reference.

    Each aspect is tested at its share of 1 %, since both sets are samples: the area under the ROC
    curve of a classifier of vectors and of each monitored statistic, Pearson's χ² of the classes.
    ``errors`` [n] (1 or 0, NaN where no label is known) adds the accuracy on labelled rows.
    """
    sample = np.sort(generator(0, "rows of drift").permutation(len(new))[:MAX_CLASSIFIER_ROWS])
    reference_rows = reference.rows
    numbers = [name for name in reference_rows.numbers if name in new.numbers]
    error = ERROR_LEVEL / (len(numbers) + 2)
    comparison, changed = None, []
    if reference_rows.vectors is not None and new.vectors is not None:
        comparison = compare_vectors(reference_rows.vectors, new.vectors[sample])
        if comparison is not None:
            # One-sided, at another level than the interval that is shown.
            area = rank_area(comparison.old_scores, comparison.scores, 1 - 2 * error)
            if (area.low or 0) > 0.5:
                changed.append("inputs")
    shares, p_value = _compare_answers(reference, new)
    if p_value < error:
        changed.append("classes")
    facts = {
        name: _compare_statistic(reference_rows.numbers[name], new.numbers[name], 1 - error)
        for name in numbers
    }
    changed += [name for name, fact in facts.items() if fact["moved"]]
    before, accuracy = _accuracies(reference, new, comparison, bool(changed))
    labels, harm = _labelled_accuracy(reference, new, errors, between)
    terms: list[DriftWord] = []
    examples: list[dict[str, Any]] = []
    if changed and new.texts is not None:
        words = word_row_counts(new.texts)
        terms = changed_words(words, len(new), reference.word_counts, reference.n_texts)
        if comparison is not None:
            examples = _examples(new.take(sample), comparison.scores)
    return DriftReport(
        len(new),
        reference,
        changed,
        comparison,
        shares,
        facts,
        {"before": before, "estimated": accuracy, **labels},
        harm,
        terms,
        examples,
        DriftMonitor.of_reference(reference, between).add(new),
    )


def _compare_answers(reference: Reference, new: DriftRows) -> tuple[list[dict[str, Any]], float]:
    """The share of each predicted class, and the p-value of equal shares; empty and 1 where
    predictions are not classes."""
    names, old_answers, new_answers = reference.classes, reference.rows.answers, new.answers
    if old_answers is None or new_answers is None or not names:
        return [], 1.0
    then, now = (
        np.bincount(answers[answers >= 0], minlength=len(names))
        for answers in (old_answers, new_answers)
    )
    return _class_shares(names, then, now), proportions_p_value(then, now)


def _class_shares(names: Sequence[str], then: Ints, now: Ints) -> list[dict[str, Any]]:
    """Every class, sorted by the change of its share, largest first."""
    old, late = max(1, int(then.sum())), max(1, int(now.sum()))
    order = np.argsort(-np.abs(now / late - then / old), kind="stable")
    return [
        {
            "class": names[int(k)],
            "then": _share_estimate(int(then[k]), old),
            "now": _share_estimate(int(now[k]), late),
        }
        for k in order
    ]


def _share_estimate(count: int, n: int) -> Estimate:
    low, high = wilson(count, n)
    return Estimate(count / n, low, high)


def _compare_statistic(then: Floats, now: Floats, level: float) -> dict[str, Any]:
    old, late = then[np.isfinite(then)], now[np.isfinite(now)]
    values = np.concatenate([old, late])
    labels = np.repeat([False, True], [len(old), len(late)])
    shown, corrected = delong(labels, values), delong(labels, values, level)
    moved = bool(len(old) > 1 and len(late) > 1 and (corrected.low > 0.5 or corrected.high < 0.5))
    area = Estimate(shown.value, shown.low, shown.high)
    if not np.isfinite([shown.value, shown.low, shown.high]).all():
        area = Estimate(None, why="too few rows have a value")
    before, after = (float(np.median(x)) if len(x) else float("nan") for x in (old, late))
    return {"then": before, "now": after, "higher": area, "moved": moved}


def _accuracies(
    reference: Reference, new: DriftRows, comparison: VectorComparison | None, changed: bool
) -> tuple[Estimate, Estimate]:
    """The accuracy on the reference rows, and the estimate for the new rows without labels."""
    correct = reference.correct
    if correct is None or not np.isfinite(correct).any():
        unknown = Estimate(None, why=NOT_CORRECT_OR_WRONG)
        return unknown, unknown
    known = correct[np.isfinite(correct)]
    before = _share_estimate(int(known.sum()), len(known))
    return before, unlabelled_accuracy(reference, new, comparison, weigh=changed)


def unlabelled_accuracy(
    reference: Reference, new: DriftRows, comparison: VectorComparison | None, *, weigh: bool
) -> Estimate:
    """The accuracy on new rows, estimated without labels. With ``weigh`` the reference rows have
    the importance weights of the ``comparison``."""
    if reference.correct is None:
        return Estimate(None, why=NOT_CORRECT_OR_WRONG)
    confidence, new_confidence = (one.numbers.get(CONFIDENCE) for one in (reference.rows, new))
    if confidence is None or new_confidence is None:
        unsure = "the predictions have no confidence"
        return Estimate(None, why=unsure if new_confidence is None else UNPREDICTED)
    weights = support = None
    if comparison is not None:
        support = support_problem(
            comparison.weights, float(comparison.outside.mean()), len(comparison.scores)
        )
        weights = comparison.weights if weigh else None
    return estimate_accuracy(
        confidence, reference.correct, new_confidence, weights=weights, support=support
    )


def _labelled_accuracy(
    reference: Reference, new: DriftRows, errors: Floats | None, between: int
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The accuracy on labelled rows, and whether the error rate shows harm."""
    if errors is None or not np.isfinite(errors).any():
        return {"powered": None, "labels": 0}, None
    labelled = np.isfinite(errors)
    confidence = new.numbers.get(CONFIDENCE, np.full(len(new), np.nan))
    powered = powered_accuracy(1 - errors[labelled], confidence[labelled], confidence[~labelled])
    block = {"powered": powered, "labels": int(labelled.sum())}
    watch = None if reference.correct is None else HarmWatch.of_reference(reference.correct)
    if watch is None:
        return block, None
    harm_watch, at = watch.add(errors[labelled], between)
    since = None if at is None else int(np.flatnonzero(labelled)[harm_watch.detector.since])
    harm = {"harmful": at is not None, "allowed": harm_watch.allowed, "tolerance": TOLERANCE}
    return block, {**harm, "since": since}


def _examples(rows: DriftRows, scores: Floats) -> list[dict[str, Any]]:
    """The rows most unlike the reference, each text once."""
    assert rows.texts is not None
    examples: dict[str, dict[str, Any]] = {}
    for row in map(int, np.argsort(-scores, kind="stable")):
        name = rows.names[row] if rows.names is not None else str(row)
        text, score = rows.texts[row], float(scores[row])
        examples.setdefault(text, {"row": name, "text": text, "newness": score})
        if len(examples) == MAX_EXAMPLES:
            break
    return list(examples.values())
