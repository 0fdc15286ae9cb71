"""The numbers that the rules for curves read from another program's log, and the gap of its metric
between training and validation rows, with its uncertainty.

The gap of an evaluation is the metric on the training rows minus that on the validation rows, as a
share of 1. Its interval reflects the number of rows:

- validation: Wilson's 95 % interval where the log says how many rows a value is measured on; else
  the value itself, ± two standard deviations of the curve's own noise. That assumes many rows: a
  log that hides how few they are looks more certain than it is.
- training rows: their logged metric, ± two standard deviations of its noise. They are the rows in
  question and no sample. But most programs measure them on the batches since the last evaluation,
  while the model changes and with dropout, so the value is rather too low.
- without a training metric: the range that their loss allows. A wrong row has at most half of the
  probability on its label, so its cross-entropy is at least ln 2, and of rows with a mean loss L at
  most L / ln 2 are wrong. This holds for an accuracy with a cross-entropy, so it is used where the
  validation rows obey it at every evaluation (with several labels per row they do not). Otherwise
  the training rows count as fitted where their loss is near zero: 2 % of its first value and of the
  validation loss.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

import numpy as np

from holdfast.core.curves import PERCENT_ABOVE, Curves, Series, is_percentage
from holdfast.monitor.curves.shape import ENOUGH, CurveShape, ScaleChange, one_scale, shape_of
from holdfast.monitor.limits import GAP
from holdfast.stats.intervals import wilson


@dataclass(frozen=True, slots=True)
class CurveFacts:
    """The shapes of a log's curves. ``valid`` and ``train`` exist with at least two finite points
    each. ``metric`` and ``train_metric`` are the same metric on both sets. ``rescaled`` is the
    scale change that was removed, where both losses change their scale."""

    curves: Curves
    valid: CurveShape | None
    train: CurveShape | None
    metric: CurveShape | None
    train_metric: CurveShape | None
    rescaled: ScaleChange | None = None

    @property
    def evaluations(self) -> int:
        """The number of finite points of the validation series."""
        return 0 if self.curves.valid is None else len(self.curves.valid.finite)

    @property
    def train_change(self) -> float | None:
        """The training loss at the end minus that at the best evaluation, as a share of the latter;
        ``None`` without a training loss or where that was 0."""
        if self.train is None or self.valid is None:
            return None
        then = self.train.value_at(float(self.valid.at[self.valid.low]))
        return (self.train.end - then) / then if then > 0 else None

    @property
    def metric_change(self) -> float | None:
        """How much better the validation metric is at the end than where the loss was lowest, in
        its own unit; below 0 where it is worse. ``None`` without both a metric and a loss."""
        if self.metric is None or self.valid is None or self.valid_is_metric:
            return None
        then = self.metric.value_at(float(self.valid.at[self.valid.low]))
        return then - self.metric.end

    @property
    def metric_gap(self) -> float | None:
        """How much better the metric is on the training rows at the end, in its own unit; see
        ``CurveGap`` for its interval, and for logs without a training metric."""
        if self.metric is None or self.train_metric is None:
            return None
        return self.metric.end - self.train_metric.end

    @property
    def level_ratio(self) -> float | None:
        """Training loss ÷ validation loss at the end, where both have the same name."""
        if self.train is None or self.valid is None or not self.curves.comparable:
            return None
        return self.train.end / self.valid.end if self.valid.end > 0 else None

    @property
    def best(self) -> float:
        """The position where validation was best; 0 without validation."""
        return 0.0 if self.valid is None else float(self.valid.at[self.valid.best])

    @property
    def without_losses(self) -> bool:
        """Whether validation is known only by a metric."""
        return self.curves.valid is None or self.valid_is_metric

    @property
    def valid_is_metric(self) -> bool:
        """Whether the validation series is a metric where higher is better."""
        return self.curves.valid is not None and self.curves.valid.higher_is_better

    @property
    def unit(self) -> float:
        """One point of the metric: 0.01 where it is a share, else 1."""
        return 0.01 if self.metric_is_share else 1.0

    @property
    def metric_is_share(self) -> bool:
        """Whether the validation metric is in [0, 1], directly or in per cent."""
        return is_share(self.curves.valid_metric)


def is_share(series: Series | None) -> bool:
    """Whether the values are in [0, 1], directly or in per cent."""
    if series is None or not len(series.finite):
        return False
    known = as_share(series).finite.values
    return bool(known.min() >= 0 and known.max() <= PERCENT_ABOVE)


def curve_facts(curves: Curves) -> CurveFacts:
    """Compute the facts of a log."""
    # First, since all later rules would mistake another scale of the loss for a rise, or miss one.
    curves, rescaled = one_scale(curves)
    valid, train = (None if s is None else shape_of(s) for s in (curves.valid, curves.train))
    metric, train_metric = (
        None if s is None else shape_of(as_share(s), shifts=False)
        for s in (curves.valid_metric, curves.train_metric)
    )
    return CurveFacts(curves, valid, train, metric, train_metric, rescaled)


def as_share(series: Series) -> Series:
    """A metric in per cent as a share of 1, so that both sets have one scale; others unchanged."""
    percent = is_percentage(series.finite.values)
    return replace(series, values=series.values / 100) if percent else series


FITTED = 0.95  # of the metric: the training rows are fitted
FLOOR_SHARE = 0.02  # of its first value, and of the validation loss: a training loss near zero
ACCURACY = re.compile(r"acc|match", re.IGNORECASE)
# Losses for which a wrong row has no known minimum.
OTHER_LOSS = re.compile(r"mse|mae|mape|huber|hinge|err|l1|l2|ppl|perplexity", re.IGNORECASE)
SLACK = 1e-3  # logs round their values
NO_SHARE = re.compile(r"psnr|reward", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CurveGap:
    """The metric on training rows (``train``, ``None`` where it is not logged) and on validation
    rows (``valid``) as shares of 1, and the interval [``low``, ``high``] of their difference.
    ``fitted`` says that the training loss is near zero; ``least`` is the lowest possible training
    metric."""

    train: float | None
    valid: float
    least: float
    low: float
    high: float

    @property
    def value(self) -> float | None:
        """Training minus validation; ``None`` without a training metric."""
        return None if self.train is None else self.train - self.valid

    @property
    def wide(self) -> bool:
        """Whether even the lower bound is above the threshold."""
        return self.low > GAP

    @property
    def open(self) -> bool:
        """Whether the gap is above the threshold, but its lower bound is not."""
        return self.least - self.valid > GAP and not self.wide

    @property
    def narrow(self) -> bool:
        """Whether even the upper bound is below the threshold."""
        return self.high < GAP

    @property
    def fitted(self) -> bool:
        """Whether 95 % of the training rows or more are correct."""
        return self.least >= FITTED


def gap_at_end(facts: CurveFacts) -> CurveGap | None:
    """The gap at the last evaluation; ``None`` without a validation metric that is a share."""
    return None if facts.metric is None else _gap(facts, float(facts.metric.at[-1]))


def gap_at_best(facts: CurveFacts) -> CurveGap | None:
    """The gap at the best evaluation, by the validation loss where there is one."""
    return _gap(facts, facts.best)


def parted_since(facts: CurveFacts) -> float:
    """The position after which the gap stayed above the threshold, by the logged metrics; without a
    training metric the position where validation was best."""
    if facts.metric is None or facts.train_metric is None:
        return facts.best
    places = facts.metric.at
    trained = [facts.train_metric.value_at(float(at)) for at in places]
    below = np.flatnonzero(facts.metric.smooth - trained <= GAP)
    return float(places[min(below[-1] + 1, len(places) - 1)]) if len(below) else float(places[0])


def training_fitted(facts: CurveFacts) -> bool:
    """Whether the training rows are fitted: by their metric, or by what their loss implies."""
    gap = gap_at_end(facts)
    return gap.fitted if gap is not None else _loss_at_floor(facts)


def _gap(facts: CurveFacts, place: float) -> CurveGap | None:
    series = facts.curves.valid_metric
    if facts.metric is None or (facts.train is None and facts.train_metric is None):
        return None
    if series is None or NO_SHARE.search(series.name) or not facts.metric_is_share:
        return None
    # Shapes hold costs: of a share the cost is 1 − share.
    valid = 1 - facts.metric.cost_at(place)
    rows, wobble = facts.curves.valid_rows, ENOUGH * facts.metric.wobble
    low, high = valid - wobble, valid + wobble
    if rows and 0 <= valid <= 1:
        low, high = wilson(valid * rows, rows)
    if facts.train_metric is not None:
        # The training metric at an evaluation; smoothed where it is logged more often than
        # evaluations are made, such as for single batches. The metric of one batch of 32 rows
        # varies by some 5 points.
        often = len(facts.train_metric.cost) > 2 * len(facts.metric.cost)
        trained = facts.train_metric.value_at(place) if often else facts.train_metric.cost_at(place)
        train = 1 - trained
        wobble = ENOUGH * facts.train_metric.wobble
        return CurveGap(train, valid, train, train - wobble - high, train + wobble - low)
    loss = None if facts.train is None else facts.train.value_at(place)
    least = _least(facts, series, loss)
    return CurveGap(None, valid, least, least - high, 1 - low)


def _least(facts: CurveFacts, metric: Series, loss: float | None) -> float:
    """The lowest metric that the training loss allows; 0 where it says nothing."""
    name = "" if facts.curves.train is None else facts.curves.train.name
    obeys = ACCURACY.search(metric.name) is not None and not OTHER_LOSS.search(name)
    valid = facts.curves.valid
    if obeys and not facts.without_losses and valid is not None:
        # Check that the validation loss is at least what the wrong validation rows cost.
        known, wrong = valid.finite, 1 - as_share(metric).finite.values
        obeys = len(known) > 0 and bool(
            np.all(
                wrong * math.log(2)
                <= np.interp(metric.finite.positions, known.positions, known.values) + SLACK
            )
        )
    if loss is not None and obeys:
        # By Markov's inequality: a row costs ln 2 or more where it is wrong, and never below 0.
        return max(0.0, 1 - max(0.0, loss) / math.log(2))
    return FITTED if _loss_at_floor(facts) else 0.0


def _loss_at_floor(facts: CurveFacts) -> bool:
    train, ratio = facts.train, facts.level_ratio
    if train is None or ratio is None:
        return False
    return ratio <= FLOOR_SHARE and train.end <= FLOOR_SHARE * train.start
