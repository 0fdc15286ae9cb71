"""What a foreign log shows, as a few numbers: the facts that the rules for curves read."""

from __future__ import annotations

from dataclasses import dataclass, replace

from holdfast.core.curves import WHOLE, Curves, Series, in_percent
from holdfast.monitor.curves.scale import Rescaled, one_scale
from holdfast.monitor.curves.shape import CurveShape, shape_of

QUARTER = 0.25


@dataclass(frozen=True, slots=True)
class CurveFacts:
    """The shapes of a log's curves. ``valid`` is there with at least two finite evaluations,
    ``train`` likewise; ``metric`` and ``train_metric`` are the same metric on both sets.
    ``rescaled`` is what was taken out where both losses change their scale."""

    curves: Curves
    valid: CurveShape | None
    train: CurveShape | None
    metric: CurveShape | None
    train_metric: CurveShape | None
    rescaled: Rescaled | None = None

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
        """How much better the metric is on the training rows at the end, in its own unit; see
        ``curve_gap`` for its interval, and for logs without a training metric."""
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
    def best(self) -> float:
        """Where validation was best; 0 without one."""
        return 0.0 if self.valid is None else float(self.valid.at[self.valid.best])

    @property
    def without_losses(self) -> bool:
        """Whether validation is known by a metric alone."""
        return self.curves.valid is None or self.valid_is_metric

    @property
    def valid_is_metric(self) -> bool:
        """Whether the validation series is a metric that rises."""
        return self.curves.valid is not None and self.curves.valid.rises

    @property
    def unit(self) -> float:
        """One point of the metric: a hundredth where it is a share, else 1."""
        return 0.01 if self.metric_is_share else 1.0

    @property
    def metric_is_share(self) -> bool:
        """Whether the validation metric lies in [0, 1], as it is or in per cent."""
        series = self.curves.valid_metric
        if series is None or not len(series.finite):
            return False
        known = as_share(series).finite.values
        return bool(known.min() >= 0 and known.max() <= WHOLE)


def curve_facts(curves: Curves) -> CurveFacts:
    """The facts of a log, whatever it holds."""
    # First of all: to everything below another scale of the loss looks like a rise, or hides one.
    curves, rescaled = one_scale(curves)
    valid, train = (None if s is None else shape_of(s) for s in (curves.valid, curves.train))
    metric, train_metric = (
        None if s is None else shape_of(as_share(s), shifts=False)
        for s in (curves.valid_metric, curves.train_metric)
    )
    return CurveFacts(curves, valid, train, metric, train_metric, rescaled)


def as_share(series: Series) -> Series:
    """A metric in per cent as a share of 1, so that both sets have one scale; others as they
    are."""
    percent = in_percent(series.finite.values)
    return replace(series, values=series.values / 100) if percent else series
