"""Reliability: bins of confidence against accuracy, and the expected calibration error."""

from __future__ import annotations

from typing import Any

import numpy as np

from holdfast.core.records import Estimate, Floats, Outputs
from holdfast.core.seeds import generator
from holdfast.evaluate.resample import Units, bootstrap_notes, to_estimate, undefined
from holdfast.stats.bootstrap import bootstrap, sums
from holdfast.tasks.metrics.calibration import confidence_bins


def reliability(outputs: Outputs) -> dict[str, Any]:
    """``{"bins": [{"low", "high", "n", "confidence", "accuracy"}]}``, from the least confident;
    no bins where there are no rows or a logit is not finite."""
    if not len(outputs.labels) or not np.isfinite(outputs.logits).all():
        return {"bins": []}
    bins = confidence_bins(outputs)
    n = np.bincount(bins.member, minlength=bins.count)
    confidence = np.bincount(bins.member, bins.confidence, bins.count) / n
    accuracy = np.bincount(bins.member, bins.right, bins.count) / n
    return {
        "bins": [
            {
                "low": float(bins.edges[i]), "high": float(bins.edges[i + 1]), "n": int(n[i]),
                "confidence": float(confidence[i]), "accuracy": float(accuracy[i]),
            }
            for i in range(bins.count)
        ]
    }  # fmt: skip


def ece_estimate(
    outputs: Outputs, units: Units, seed: int, level: float, resamples: int
) -> Estimate:
    """ECE with a BCa interval, the bins held as the whole sample drew them. A resample's ECE is
    biased upwards again, which is what the bias correction of BCa takes out."""
    if not np.isfinite(outputs.logits).all():
        return undefined("a logit is not finite")
    bins = confidence_bins(outputs)
    n = len(bins.member)
    rows = np.zeros((n, bins.count + 1))
    rows[np.arange(n), bins.member] = bins.right - bins.confidence
    rows[:, -1] = 1
    table = sums(rows, units.codes, units.atoms)

    def ece(weights: Floats) -> Floats:
        total = weights @ table
        return np.asarray(np.abs(total[:, :-1]).sum(1) / total[:, -1])

    result = bootstrap(
        ece, units.multiplicity, seed=generator(seed, "bootstrap", "ece"),
        level=level, resamples=resamples,
    )  # fmt: skip
    notes = [f"{bins.count} bins of equal mass; biased upwards at small n", *bootstrap_notes(units)]
    return to_estimate(result, 0, level, notes)
