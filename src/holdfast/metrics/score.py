"""All metrics of a set of rows, with intervals that hold at small n.

Rates (accuracy; precision, recall and F1 of a class) have Wilson's interval; with groups, Wilson's
at the effective sample size. The others are resampled: BCa over the confusion cells (averages of
precision, recall and F1; for a rare class see ``confusion``), or over rows; with groups, each is
left out once and Student's t used, from three groups on. ECE has an interval of its own, see
``reliability``.

Out-of-fold predictions are scored as an estimate for one model trained on all rows
(``score_out_of_fold``). K models, each trained on a part of the rows, predict the rest, each row
once. Their mean estimates the score of the model trained on all n rows on new rows, with more
uncertainty than n new rows would give: the predictions of two folds are correlated through the rows
that both were trained on, models trained on fewer rows are slightly worse, and the model trained on
all rows is itself one draw. The usual interval of n rows is therefore too narrow: for linear probes
on 100 to 300 rows it covered the truth in 82 to 91 of 100 cases (2104.00673 explains why;
2409.18836 compares thirteen methods).

Two corrections are made. Rates that rise with the number of rows (accuracy, precision, recall, F1
…) have the interval of n ÷ ``RATE_EFFECT`` rows. Its upper limit is that of a model trained on all
rows whose error falls as n^−``SLOPE``: these rows do not show how steep the learning curve is, so
the lower limit assumes a flat one. The loss and user metrics have Nadeau and Bengio's rule (2003),
the interval of n ÷ (1 + K/(K−1)) rows, and the lower limit of the loss is that of one that falls
as n^−``SLOPE``. The constants were chosen on some data sets and measured on others
(``benchmarks/cross_validation.py``).
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
# Rows times resamples for a ranking: 2,000 resamples up to 10,000 rows.
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


def rate_estimate(hits: Bools | Floats, units: ResampledUnits, level: float) -> Estimate:
    """A share of rows with Wilson's interval; for grouped rows at the effective number of rows
    (``intervals.wilson_by_groups``), which is undefined for a single group. ``hits`` [n], at least
    one row; between 0 and 1, so that a tie may be half a hit."""
    value = float(np.mean(hits))
    if not units.grouped:
        low, high = wilson(float(np.sum(hits)), len(hits), level)
        return Estimate(value, low, high, level)
    low, high = wilson_by_groups(hits, units.codes, level)
    if math.isnan(low):
        return Estimate(value, level=level, why="no interval: all rows are of one group")
    note = f"Wilson interval at the effective sample size ({units.atoms} groups)"
    return Estimate(value, low, high, level, note=note)


def _rankings(
    outputs: Outputs, classes: tuple[str, ...], drawing: Resampling
) -> dict[str, Estimate]:
    # A ranking needs rows of both classes.
    if len(np.unique(outputs.labels)) < 2:
        return {name: undefined(METRICS[name].undefined) for name in RANKINGS}
    ranking = rank(outputs)

    def both(weights: Floats) -> Floats:
        rows = drawing.units.spread(weights)
        return np.stack([ranking.roc_auc(rows), ranking.average_precision(rows)], axis=1)

    count = min(drawing.resamples, max(400, RANKED_ROWS // len(outputs.labels)))
    result = replace(drawing, resamples=count).bootstrap(both, "ranking", 300)
    notes = [f"positive class: {classes[1]}"]
    notes += [f"only {count} resamples, to save time"] if count < drawing.resamples else []
    # Every pair holds a row of the rarer class, so a perfect ranking rests on this many rows.
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
    # Compute it on all rows first: if it is undefined there, no resamples are needed.
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


RATE_EFFECT = 1.5
SLOPE = 0.3
RATES = ("accuracy", "precision", "recall", "f1", "roc_auc", "average_precision")
NOTE = "out of fold: the interval is for the model trained on all rows; these models had fewer"


def score_out_of_fold(
    outputs: Outputs,
    classes: tuple[str, ...],
    folds: int,
    *,
    seed: int = 0,
    level: float = 0.95,
    extra_metrics: Sequence[Metric] = (),
    resamples: int = RESAMPLES,
) -> Scores:
    """``score`` for predictions of ``folds`` folds, with intervals for the model trained on all
    rows. See ``corrected``."""
    plain = score(
        outputs, classes, seed=seed, level=level, extra_metrics=extra_metrics, resamples=resamples
    )
    return corrected(plain, outputs, folds, level, extra_metrics)


def corrected(
    plain: Scores,
    outputs: Outputs,
    folds: int,
    level: float = 0.95,
    extra_metrics: Sequence[Metric] = (),
) -> Scores:
    """Scores of ``outputs`` as if they were test rows, with the corrected intervals of this module.

    Accuracy has Wilson's interval at fewer rows. The others, and accuracy of grouped rows, have
    their limits moved away from the value by the root of the effect, within the metric's range.
    """
    ends = {metric.name: (metric.low, metric.high) for metric in extra_metrics}
    metrics = {
        name: widened(one, name, folds, ends.get(name)) for name, one in plain.metrics.items()
    }
    accuracy = plain.metrics["accuracy"]
    grouped = ResampledUnits.of(outputs).grouped
    if accuracy.value is not None and accuracy.low is not None and not grouped:
        n = len(outputs.labels) / RATE_EFFECT
        low = wilson(accuracy.value * n, n, level)[0]
        high = wilson(_at_most(accuracy.value, folds) * n, n, level)[1]
        metrics["accuracy"] = replace(accuracy, low=low, high=high, note=_note(accuracy))
    per_class = {
        name: {
            key: widened(value, key, folds) if isinstance(value, Estimate) else value
            for key, value in lines.items()
        }
        for name, lines in plain.extra.get("per_class", {}).items()
    }
    extra = {**plain.extra, **({"per_class": per_class} if per_class else {})}
    return replace(plain, metrics=metrics, extra=extra)


def widened(
    one: Estimate, name: str, folds: int, ends: tuple[float, float] | None = None
) -> Estimate:
    """An estimate of the metric ``name`` with limits for the model trained on all rows, within
    ``ends`` (for a built-in metric 0 to 1, for the loss from 0); unchanged without limits."""
    if one.value is None or one.low is None or one.high is None:
        return one
    rises = ends is None and name.startswith(RATES)
    factor = math.sqrt(RATE_EFFECT if rises else 1 + folds / (folds - 1))
    least, most = ends or (0.0, math.inf if name == "loss" else 1.0)
    top = _at_most(one.value, folds) if rises else one.value
    falls = ends is None and name == "loss"
    bottom = one.value * _growth(folds) if falls else one.value
    low = max(least, bottom - factor * (one.value - one.low))
    high = min(most, top + factor * (one.high - one.value))
    return replace(one, low=low, high=high, note=_note(one))


def _at_most(rate: float, folds: int) -> float:
    """The rate of a model trained on all rows, for a learning curve as steep as ``SLOPE``, if
    models trained on all but one of the folds have ``rate``."""
    return 1 - (1 - rate) * _growth(folds)


def _growth(folds: int) -> float:
    """By how much more rows lower an error or a loss: that of all rows ÷ that of all but a fold."""
    return math.pow((folds - 1) / folds, SLOPE)


def _note(one: Estimate) -> str:
    return "; ".join(filter(None, (one.note, NOTE)))
