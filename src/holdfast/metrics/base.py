"""What a metric is, and the registry of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from holdfast.core.discovery import Registry
from holdfast.core.records import Outputs

Function = Callable[[Outputs, tuple[str, ...]], float | None]


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that says how good a classifier's outputs are.

    ``low`` and ``high`` bound it (infinite where open); ``undefined`` is the sentence for a user
    when ``compute`` gives ``None``; ``two_classes`` marks a metric that exists only for two.
    """

    name: str
    higher_is_better: bool
    low: float
    high: float
    function: Function
    undefined: str = "there are no rows"
    two_classes: bool = False

    def compute(self, outputs: Outputs, classes: tuple[str, ...]) -> float | None:
        """The value, or ``None`` where it is undefined; NaN never escapes."""
        if not len(outputs.labels):
            return None
        value = self.function(outputs, classes)
        return None if value is None or not math.isfinite(value) else float(value)

    def better(self, first: float, second: float) -> bool:
        """Whether ``first`` is strictly better than ``second``."""
        return first > second if self.higher_is_better else first < second

    @property
    def best(self) -> float:
        """The value of perfect, certain outputs."""
        return self.high if self.higher_is_better else self.low


METRICS: Registry[Metric] = Registry("metric", "train.metric")


def add_metric(metric: Metric) -> Metric:
    """Register a metric of classes under its name."""
    return METRICS.add(metric.name, metric)
