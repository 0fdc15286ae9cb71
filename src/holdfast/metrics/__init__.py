"""Metrics of every task: two registries, for classes and for generated texts, one family per file.

From outputs to numbers with intervals: scores, comparisons, calibration.
"""

from __future__ import annotations

from holdfast.metrics import classes, texts
from holdfast.metrics.classes import METRICS, Metric
from holdfast.metrics.custom import find_metric, find_text_metric
from holdfast.metrics.texts import TEXT_METRICS, TextMetric, Texts

__all__ = [
    "METRICS",
    "TEXT_METRICS",
    "Metric",
    "TextMetric",
    "Texts",
    "classes",
    "find_metric",
    "find_text_metric",
    "texts",
]
