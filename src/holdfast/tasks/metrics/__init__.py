"""Metrics of every task: two registries, of classes and of written texts, one family per file."""

from holdfast.tasks.metrics import accuracy, calibration, counts, likelihood, overlap, ranking
from holdfast.tasks.metrics.base import METRICS, Metric
from holdfast.tasks.metrics.custom import find_metric, find_text_metric
from holdfast.tasks.metrics.texts import TEXT_METRICS, TextMetric, Texts

__all__ = [
    "METRICS",
    "TEXT_METRICS",
    "Metric",
    "TextMetric",
    "Texts",
    "accuracy",
    "calibration",
    "counts",
    "find_metric",
    "find_text_metric",
    "likelihood",
    "overlap",
    "ranking",
]
