"""Reliability: bins of confidence against accuracy, and the expected calibration error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.core.records import Estimate, Floats, Outputs
from holdfast.core.seeds import generator
from holdfast.evaluate.resample import Units, bootstrap_notes, to_estimate, undefined
from holdfast.stats.bootstrap import bootstrap, folded, group_codes, sums
from holdfast.stats.temperature import best_temperature, cross_fitted_losses
from holdfast.tasks.metrics.calibration import confidence_bins


@dataclass(frozen=True, slots=True)
class Calibration:
    """A temperature to save with the model, fitted on validation rows; 1 where it does not help.

    ``loss_before`` is the raw validation loss, ``loss_after`` the one at temperatures fitted on
    the other folds, so that it may be reported; NaN without rows.
    """

    temperature: float
    loss_before: float
    loss_after: float
    because: str


def calibrate(validation: Outputs, *, seed: int = 0) -> Calibration:
    """The temperature of these validation rows, smoothed by one pseudo-row, where the cross-fitted
    loss (5 folds, groups whole) says that it helps on rows that it has not seen."""
    n = len(validation.labels)
    if n < 2 or not np.isfinite(validation.logits).all():
        return Calibration(1.0, math.nan, math.nan, "too few validation rows to fit a temperature")
    groups = None if validation.groups is None else group_codes(validation.groups, n)
    before = float(np.mean(validation.losses))
    after = float(np.mean(cross_fitted_losses(
        validation.logits, validation.labels, seed=generator(seed, "calibrate"), groups=groups,
        smoothing=1.0,
    )))  # fmt: skip
    change = f"validation loss {before:.4f} raw, {after:.4f} at temperatures of the other folds"
    if not after < before:
        return Calibration(1.0, before, after, f"a temperature does not help: {change}")
    fitted = best_temperature(validation.logits, validation.labels, smoothing=1.0)[0]
    return Calibration(fitted, before, after, f"{change}; fitted on {n} validation rows")


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
    codes, atoms = folded(units.codes, units.atoms)
    table = sums(rows, codes, atoms)

    def ece(weights: Floats) -> Floats:
        total = weights @ table
        return np.asarray(np.abs(total[:, :-1]).sum(1) / total[:, -1])

    result = bootstrap(
        ece, np.ones(atoms, dtype=np.int64), seed=generator(seed, "bootstrap", "ece"),
        level=level, resamples=resamples, blocks=500,
    )  # fmt: skip
    notes = [f"{bins.count} bins of equal mass; biased upwards at small n", *bootstrap_notes(units)]
    return to_estimate(result, 0, level, notes)
