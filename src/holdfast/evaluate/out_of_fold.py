"""Scores of rows that models answered which had not learned from them, as what they say of one
model from all rows.

K models on parts of the rows answer the rest, each row once. Their mean is an estimate of what the
model from all n rows does on fresh rows, and less certain than as many fresh rows would make it:
the answers of two folds hang together through the rows that both learned from, models from fewer
rows are a little worse, and the model from all rows is one draw itself. The usual interval of n
rows is therefore too narrow (2104.00673; 2409.18836 compares thirteen ways).

Here it is that of n ÷ ``EFFECT`` rows. The rule of Nadeau and Bengio (2003), n ÷ (1 + K/(K−1)),
covers more than it says for models like these: their folds hang together less than it assumes.
``benchmarks/few_rows.py`` says how often the interval holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from holdfast.core.records import Estimate, Outputs, Scores
from holdfast.evaluate.resample import RESAMPLES, ResampledUnits
from holdfast.evaluate.score import score
from holdfast.stats.intervals import wilson
from holdfast.tasks.metrics import Metric

EFFECT = 1.3
RATES = ("accuracy",)
NOTE = "out of fold: an interval for the model from all rows, of which these models had a part"


def score_out_of_fold(
    outputs: Outputs,
    classes: tuple[str, ...],
    *,
    seed: int = 0,
    level: float = 0.95,
    extra_metrics: Sequence[Metric] = (),
    resamples: int = RESAMPLES,
) -> Scores:
    """``evaluate.score.score`` of out-of-fold answers, each interval that of n ÷ ``EFFECT`` rows.

    Accuracy has Wilson's at so many rows. The others, and accuracy of rows in groups, are widened
    about their value, √``EFFECT`` times on each side, and end where the metric does.
    """
    scores = score(
        outputs, classes, seed=seed, level=level, extra_metrics=extra_metrics, resamples=resamples
    )
    ends = {metric.name: (metric.low, metric.high) for metric in extra_metrics}
    metrics = {
        name: _accuracy(outputs, one, level)
        if name in RATES
        else widened(one, *ends.get(name, ends_of(name)))
        for name, one in scores.metrics.items()
    }
    per_class = {
        name: {
            key: widened(value) if isinstance(value, Estimate) else value
            for key, value in lines.items()
        }
        for name, lines in scores.extra.get("per_class", {}).items()
    }
    extra = {**scores.extra, **({"per_class": per_class} if per_class else {})}
    return replace(scores, metrics=metrics, extra=extra)


def _accuracy(outputs: Outputs, plain: Estimate, level: float) -> Estimate:
    if plain.low is None or ResampledUnits.of(outputs).grouped:
        return widened(plain)
    hits = outputs.predictions == outputs.labels
    low, high = wilson(float(hits.sum()) / EFFECT, len(hits) / EFFECT, level)
    return replace(plain, low=low, high=high, note="; ".join(filter(None, (plain.note, NOTE))))


def ends_of(name: str) -> tuple[float, float]:
    """Between which numbers a built-in metric lies."""
    return (0.0, math.inf) if name == "loss" else (0.0, 1.0)


def widened(one: Estimate, least: float = 0.0, most: float = 1.0) -> Estimate:
    """An estimate with its limits √``EFFECT`` times as far from its value, within ``least`` and
    ``most``; without limits as it is."""
    if one.value is None or one.low is None or one.high is None:
        return one
    factor = math.sqrt(EFFECT)
    low = max(least, one.value - factor * (one.value - one.low))
    high = min(most, one.value + factor * (one.high - one.value))
    return replace(one, low=low, high=high, note="; ".join(filter(None, (one.note, NOTE))))
