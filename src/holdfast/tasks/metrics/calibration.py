"""Does a confidence of 0.9 mean right nine times in ten? Bins of equal mass, and their gap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints, Outputs
from holdfast.tasks.metrics.base import Metric, add_metric

# As many as Guo et al. (1706.04599) had.
BINS = 15
ROWS_PER_BIN = 10


@dataclass(frozen=True, slots=True)
class Bins:
    """Rows by confidence: ``edges`` [bins + 1], the bin of each row ``member`` [n], and each
    row's ``confidence`` and ``right`` [n]. Every bin holds a row."""

    edges: Floats
    member: Ints
    confidence: Floats
    right: Floats

    @property
    def count(self) -> int:
        """How many bins there are, 15 at most."""
        return len(self.edges) - 1


def confidence_bins(outputs: Outputs) -> Bins:
    """At most 15 bins of equal mass over the confidence (the largest probability), with at least
    10 rows each where n allows (so min(15, n ÷ 10) bins, and one below 20 rows). Equal mass,
    since equal widths leave most bins nearly empty (Nixon et al., 1904.01685). Equal confidences
    are never parted, so ties can mean fewer bins."""
    probabilities = outputs.probabilities
    confidence = probabilities.max(axis=1)
    wanted = max(1, min(BINS, len(confidence) // ROWS_PER_BIN))
    # An edge is a confidence that occurs: one between two of them could part equal ones by
    # rounding.
    inner = np.quantile(confidence, np.arange(1, wanted) / wanted, method="higher")
    lowest, highest = float(confidence.min()), float(confidence.max())
    # An edge at the lowest confidence would leave an empty bin below it.
    inner = np.unique(inner[inner > lowest])
    edges = np.concatenate([[lowest], inner, [highest]])
    member = np.searchsorted(inner, confidence, side="right")
    right = (outputs.predictions == outputs.labels).astype(np.float64)
    return Bins(edges, member, confidence, right)


def ece(outputs: Outputs, classes: tuple[str, ...]) -> float:
    """Expected calibration error: Σ_b (n_b ÷ n) |accuracy_b − mean confidence_b| over
    ``confidence_bins`` (Guo et al., 1706.04599), in [0, 1]. It is biased upwards in small
    samples: a perfectly calibrated model scores above 0."""
    bins = confidence_bins(outputs)
    gaps = np.bincount(bins.member, weights=bins.right - bins.confidence, minlength=bins.count)
    return float(np.abs(gaps).sum() / len(bins.member))


ECE = add_metric(Metric("ece", False, 0.0, 1.0, ece))
