"""The honest number: every metric of a set of rows, with an interval right at small n.

Rates (accuracy; precision, recall and F1 of a class) have Wilson's interval; with groups, Wilson's
at the effective sample size. The others are resampled: BCa over the confusion cells (averages of
precision, recall and F1; where a class is rare, see ``rare``), or over rows; with groups, each is
left out once and Student's t used, from three groups on. ECE has an interval of its own, see
``reliability``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Estimate, Floats, Ints, Outputs, Scores
from holdfast.metrics import METRICS, Metric
from holdfast.metrics.classes import rank
from holdfast.metrics.confusion import confusion_counts, confusion_scores
from holdfast.metrics.reliability import ece_estimate, reliability
from holdfast.metrics.resample import POSITIVE, RESAMPLES, ResampledUnits, Resampling, undefined
from holdfast.stats.intervals import wilson, wilson_by_groups

RANKINGS = ("roc_auc", "average_precision")
# Rows times resamples that a ranking may read: 2,000 resamples up to 10,000 rows.
RANKED_ROWS = 20_000_000

Bools = npt.NDArray[np.bool_]


def score(
    outputs: Outputs,
    classes: tuple[str, ...],
    *,
    seed: int = 0,
    level: float = 0.95,
    extra_metrics: Sequence[Metric] = (),
    resamples: int = RESAMPLES,
) -> Scores:
    """Every metric of ``outputs`` with its interval, and the tables of a report.

    ``metrics``: accuracy, precision_macro, recall_macro, f1_macro, f1_weighted, for two classes
    roc_auc and average_precision (positive: the second class), loss, ece, then ``extra_metrics``
    (BCa over rows from 300 resamples, since they are called once per resample; Student's over
    groups).
    ``extra``: ``confusion``, ``reliability`` and ``per_class``.

    No rows: every metric is undefined and says so. Below 100 rows, resampled intervals carry the
    note that they are unreliable; grouped rows are named in the note of every metric.
    """
    if not len(outputs.labels):
        return _empty(classes, extra_metrics)
    drawing = Resampling(ResampledUnits.of(outputs), seed, level, resamples)
    averages, per_class = confusion_scores(outputs, classes, drawing)
    metrics = {"accuracy": accuracy_estimate(outputs, level), **averages}
    if len(classes) == 2:
        metrics |= _rankings(outputs, classes, drawing)
    metrics["loss"] = _loss(outputs, drawing)
    metrics["ece"] = ece_estimate(outputs, drawing.units, seed, level)
    for metric in extra_metrics:
        metrics[metric.name] = _user_metric(metric, outputs, classes, drawing)
    extra = {
        "confusion": confusion_counts(outputs, classes),
        "reliability": reliability(outputs),
        "per_class": per_class,
    }
    return Scores(len(outputs.labels), metrics, extra)


def accuracy_estimate(outputs: Outputs, level: float = 0.95) -> Estimate:
    """Accuracy with Wilson's interval, or with groups Wilson's at n ÷ design effect rows."""
    right = outputs.predictions == outputs.labels
    return rate_estimate(right, ResampledUnits.of(outputs), level)


def rate_estimate(hits: Bools, units: ResampledUnits, level: float) -> Estimate:
    """A share of rows with Wilson's interval; of grouped rows at the effective number of rows
    (``intervals.wilson_by_groups``), which all rows of one group do not have. ``hits`` [n], one row
    at least."""
    value = float(np.mean(hits))
    if not units.grouped:
        low, high = wilson(float(np.sum(hits)), len(hits), level)
        return Estimate(value, low, high, level)
    low, high = wilson_by_groups(hits, units.codes, level)
    if math.isnan(low):
        return Estimate(value, level=level, why="no interval: all rows are of one group")
    note = f"Wilson interval at the effective number of rows of {units.atoms} groups"
    return Estimate(value, low, high, level, note=note)


def _rankings(
    outputs: Outputs, classes: tuple[str, ...], drawing: Resampling
) -> dict[str, Estimate]:
    # A ranking needs a row of either class.
    if len(np.unique(outputs.labels)) < 2:
        return {name: undefined(METRICS[name].undefined) for name in RANKINGS}
    ranking = rank(outputs)

    def both(weights: Floats) -> Floats:
        rows = drawing.units.spread(weights)
        return np.stack([ranking.roc_auc(rows), ranking.average_precision(rows)], axis=1)

    count = min(drawing.resamples, max(400, RANKED_ROWS // len(outputs.labels)))
    result = replace(drawing, resamples=count).bootstrap(both, "ranking", 300)
    notes = [f"positive class: {classes[1]}"]
    notes += [f"{count} resamples, for time"] if count < drawing.resamples else []
    # Every pair holds a row of the rarer class: so few rows are what a perfect ranking rests on.
    rarer = int(np.bincount(outputs.labels, minlength=2).min())
    return {
        name: drawing.estimate(result, i, *notes, counting=rarer) for i, name in enumerate(RANKINGS)
    }


def _loss(outputs: Outputs, drawing: Resampling) -> Estimate:
    if not np.isfinite(outputs.losses).all():
        return undefined("a loss is not finite")
    pair = np.column_stack([outputs.losses.astype(np.float64), np.ones(len(outputs.losses))])
    result, _ = drawing.sums(pair, lambda total: total[:, 0] / total[:, 1], "loss")
    return drawing.estimate(result, within=POSITIVE)


def _user_metric(
    metric: Metric, outputs: Outputs, classes: tuple[str, ...], drawing: Resampling
) -> Estimate:
    # Once on all rows first: what is undefined there needs no resamples.
    if metric.compute(outputs, classes) is None:
        return undefined(metric.undefined)

    def compute(rows: Ints) -> float | None:
        part = Outputs(
            outputs.rows[rows], outputs.labels[rows], outputs.logits[rows], outputs.losses[rows]
        )
        return metric.compute(part, classes)

    return drawing.calls(compute, metric.name, (metric.low, metric.high))


def _empty(classes: tuple[str, ...], extra_metrics: Sequence[Metric]) -> Scores:
    names = ["accuracy", "precision_macro", "recall_macro", "f1_macro", "f1_weighted"]
    names += [*RANKINGS] if len(classes) == 2 else []
    names += ["loss", "ece", *(metric.name for metric in extra_metrics)]
    nothing = undefined("there are no rows")
    zeros = [[0] * len(classes) for _ in classes]
    per_class = {
        name: {"n": 0, "precision": nothing, "recall": nothing, "f1": nothing} for name in classes
    }
    extra = {
        "confusion": {"classes": list(classes), "counts": zeros},
        "reliability": {"bins": []},
        "per_class": per_class,
    }
    return Scores(0, dict.fromkeys(names, nothing), extra)
