"""Scores of rows that models answered which had not learned from them, as what they say of one
model from all rows.

K models on parts of the rows answer the rest, each row once. Their mean is an estimate of what the
model from all n rows does on fresh rows, and less certain than as many fresh rows would make it:
the answers of two folds hang together through the rows that both learned from, models from fewer
rows are a little worse, and the model from all rows is one draw itself. The usual interval of n
rows is therefore too narrow: for linear probes on 100 to 300 rows it held the truth in 82 to 91 of
100 cases (2104.00673 says why; 2409.18836 compares thirteen ways).

Two things are put right. Rates that rise with the rows (accuracy, precision, recall, F1 …) have the
interval of n ÷ ``RATE_EFFECT`` rows, and its upper limit is that of a model from all rows whose
error falls as n^−``SLOPE``: how steep the learning curve is nobody knows from these rows, so the
lower limit takes it for flat. The loss, and metrics of a user's, whose level hangs on the number of
rows in either direction, have Nadeau and Bengio's rule (2003), the interval of n ÷ (1 + K/(K−1))
rows. The constants were chosen on some sets and measured on others (``benchmarks/few_rows.py``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from holdfast.core.records import Estimate, Outputs, Scores
from holdfast.metrics import Metric
from holdfast.metrics.resample import RESAMPLES, ResampledUnits
from holdfast.metrics.score import score
from holdfast.stats.intervals import wilson

RATE_EFFECT = 1.5
SLOPE = 0.3
RATES = ("accuracy", "precision", "recall", "f1", "roc_auc", "average_precision")
NOTE = "out of fold: an interval for the model from all rows, of which these models had a part"


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
    """``metrics.score.score`` of answers out of so many ``folds``, with intervals for the model
    from all rows. See ``corrected``."""
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
    """Scores of ``outputs`` as if they were test rows, with the intervals of this module.

    Accuracy has Wilson's at fewer rows. The others, and accuracy of rows in groups, have their
    limits moved away from their value by the root of their effect, and end where the metric does.
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
    """An estimate of the metric ``name`` with limits for the model from all rows, within ``ends``
    (a built-in metric's: 0 to 1, of the loss from 0 on); without limits as it is."""
    if one.value is None or one.low is None or one.high is None:
        return one
    rises = ends is None and name.startswith(RATES)
    factor = math.sqrt(RATE_EFFECT if rises else 1 + folds / (folds - 1))
    least, most = ends or (0.0, math.inf if name == "loss" else 1.0)
    top = _at_most(one.value, folds) if rises else one.value
    low = max(least, one.value - factor * (one.value - one.low))
    high = min(most, top + factor * (one.high - one.value))
    return replace(one, low=low, high=high, note=_note(one))


def _at_most(rate: float, folds: int) -> float:
    """The rate of models from all rows, on a learning curve as steep as ``SLOPE``, where models
    from all but one of so many folds have ``rate``."""
    return 1 - (1 - rate) * math.pow((folds - 1) / folds, SLOPE)


def _note(one: Estimate) -> str:
    return "; ".join(filter(None, (one.note, NOTE)))
