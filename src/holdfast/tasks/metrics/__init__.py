"""Metrics of a classifier's outputs: one registry, one family per file."""

from holdfast.tasks.metrics import accuracy, calibration, counts, likelihood, ranking
from holdfast.tasks.metrics.base import METRICS, Metric
from holdfast.tasks.metrics.custom import find_metric

__all__ = [
    "METRICS", "Metric", "accuracy", "calibration", "counts", "find_metric", "likelihood",
    "ranking",
]  # fmt: skip
