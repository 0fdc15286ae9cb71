"""What a foreign log shows, as a few numbers: the facts that the rules for curves read."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from holdfast.core.curves import Curves, Series, position
from holdfast.core.records import Evidence
from holdfast.monitor.curve_shape import Shape, shape_of

QUARTER = 0.25


@dataclass(frozen=True, slots=True)
class CurveFacts:
    """The shapes of a log's curves. ``valid`` is there with at least two finite evaluations,
    ``train`` likewise; ``metric`` and ``train_metric`` are the same metric on both sets."""

    curves: Curves
    valid: Shape | None
    train: Shape | None
    metric: Shape | None
    train_metric: Shape | None

    @property
    def evaluations(self) -> int:
        """Finite points of the validation series."""
        return 0 if self.curves.valid is None else len(self.curves.valid.finite)

    @property
    def train_change(self) -> float | None:
        """The training loss at the end less that at the best evaluation, as a share of the latter;
        ``None`` without a training loss or where that was 0."""
        if self.train is None or self.valid is None:
            return None
        then = self.train.value_at(float(self.valid.at[self.valid.low]))
        return (self.train.end - then) / then if then > 0 else None

    @property
    def metric_change(self) -> float | None:
        """How much better the validation metric is at the end than at the loss's lowest point, in
        its own unit; below 0 where it is worse. ``None`` without a metric beside a loss."""
        if self.metric is None or self.valid is None or self.valid_is_metric:
            return None
        then = self.metric.value_at(float(self.valid.at[self.valid.low]))
        return then - self.metric.end

    @property
    def metric_gap(self) -> float | None:
        """How much better the metric is on the training rows at the end, in its own unit."""
        if self.metric is None or self.train_metric is None:
            return None
        return self.metric.end - self.train_metric.end

    @property
    def level_ratio(self) -> float | None:
        """Training loss over validation loss at the end, where both have the same name."""
        if self.train is None or self.valid is None or not self.curves.comparable:
            return None
        return self.train.end / self.valid.end if self.valid.end > 0 else None

    @property
    def valid_is_metric(self) -> bool:
        return self.curves.valid is not None and self.curves.valid.rises

    @property
    def unit(self) -> float:
        """One hundredth of the metric's range: 0.01, or 1 where it is in per cent."""
        return 0.01 if self.metric is None or self.metric.cost.max() <= 1 else 1.0


def curve_facts(curves: Curves) -> CurveFacts:
    """The facts of a log, whatever it holds."""
    shapes = [
        None if series is None else shape_of(series)
        for series in (curves.valid, curves.train, curves.valid_metric, curves.train_metric)
    ]
    return CurveFacts(curves, *shapes)


def first_broken(curves: Curves) -> tuple[Series, float] | None:
    """The series and the position where losses stop being numbers and never are again; one bad
    point in the middle, as mixed precision makes them, is none."""
    found = []
    for series in (curves.train, curves.valid):
        at = None if series is None else _breaks_at(series)
        if series is not None and at is not None:
            found.append((series, at))
    return min(found, key=lambda item: item[1], default=None)


def _breaks_at(series: Series) -> float | None:
    finite = np.isfinite(series.values)
    if not len(finite) or finite[-1]:
        return None
    good = np.flatnonzero(finite)
    return float(series.at[good[-1] + 1 if len(good) else 0])


def evidence_of(facts: CurveFacts) -> tuple[Evidence, ...]:
    """Every number that the rules read, whichever of them decided."""
    curves, valid, train = facts.curves, facts.valid, facts.train
    last = position(curves.last)
    listed = [Evidence("finite_evaluations", float(facts.evaluations))]
    if valid is not None:
        low, wide = position(float(valid.at[valid.low])), 2 * valid.noise
        listed += [
            _item("valid_lowest", valid.floor, low),
            _item("valid_end", valid.end, last, wide),
            _item("valid_rise_since_lowest", valid.rise, last, wide),
            _item("valid_rise_as_share_of_lowest", valid.rise_share, last),
            _item("valid_rise_as_share_of_what_was_learned", valid.given_back, last),
            _item("valid_rise_that_noise_may_show", valid.doubt, None),
            _item("valid_fall_over_last_quarter", valid.fall_over(QUARTER), last, wide),
        ]
    if train is not None:
        listed += [_item("train_start", train.start, position(float(train.at[0])))]
        listed += [_item("train_end", train.end, last, 2 * train.noise)]
    told = {
        "train_change_since_valid_lowest": facts.train_change,
        "train_as_share_of_valid": facts.level_ratio,
        "valid_metric_gain_since_valid_lowest": facts.metric_change,
        "metric_gap_train_less_valid": facts.metric_gap,
    }
    listed += [_item(name, value, last) for name, value in told.items() if value is not None]
    # 1 where both losses come from the same code in evaluation mode, 0 for a running mean.
    if train is not None:
        listed.append(Evidence("train_measured_in_evaluation_mode", float(curves.clean)))
    return tuple(listed)


def _item(name: str, value: float, at: float | None, wide: float | None = None) -> Evidence:
    known = value if math.isfinite(value) else None
    if known is None or wide is None:
        return Evidence(name, known, at_step=at)
    return Evidence(name, known, known - wide, known + wide, at)
