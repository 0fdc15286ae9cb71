"""Calibration: reliability bins, expected calibration error, and the temperature to save."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.core.records import Decision, Estimate, Outputs
from holdfast.core.seeds import generator
from holdfast.core.wording import count_phrase
from holdfast.metrics.classes import confidence_bins, ece
from holdfast.metrics.resample import RELIABLE_FROM, ResampledUnits, undefined
from holdfast.stats.bootstrap import group_codes, sums
from holdfast.stats.intervals import group_freedom, normal_quantile
from holdfast.stats.paired_tests import paired_t
from holdfast.stats.temperature import (
    best_temperature,
    calibration_error_interval,
    cross_fitted_losses,
)

# Fewer rows cannot show that a temperature fitted on them does harm: fine-tuned models are nearly
# always overconfident, so the raw logits would be the worse choice.
TELLING_ROWS = 30
WORSE = 0.05


@dataclass(frozen=True, slots=True)
class Calibration:
    """A temperature to save with the model, fitted on validation rows; 1 if they show that it does
    harm, or are too few to fit one.

    ``loss_before`` is the raw validation loss, ``loss_after`` the one at temperatures fitted on
    the other folds, so that it is an unbiased number; NaN without rows.
    """

    temperature: float
    loss_before: float
    loss_after: float
    because: str

    @property
    def decision(self) -> Decision:
        return Decision("temperature", f"{self.temperature:.3f}", self.because)


def calibrate(validation: Outputs, *, seed: int = 0) -> Calibration:
    """The temperature of these validation rows, smoothed by one pseudo-row, unless the rows show
    that it does harm: their losses at temperatures fitted on the other folds (5 folds, groups
    whole) are then above the raw ones by a paired test at 5 %, with 30 units or more.

    A rule that keeps it only if the mean of those losses is lower would drop it too often: for the
    models of ``benchmarks/tuned_heads.py`` that rule cost 0.04 nats on unseen rows with 10
    validation rows, 0.01 with 36 and nothing with 288.
    """
    n = len(validation.labels)
    if n < 2 or not np.isfinite(validation.logits).all():
        return Calibration(1.0, math.nan, math.nan, "too few validation rows to fit a temperature")
    groups = None if validation.groups is None else group_codes(validation.groups, n)
    crossed = cross_fitted_losses(
        validation.logits,
        validation.labels,
        seed=generator(seed, "calibrate"),
        groups=groups,
        # One pseudo-row: perfectly separated rows would lead to a temperature of 0.
        smoothing=1.0,
    )
    before, after = float(np.mean(validation.losses)), float(np.mean(crossed))
    change = (
        f"validation loss {before:.4f} without a temperature, {after:.4f} at temperatures fitted "
        "on other folds"
    )
    units = np.arange(n) if groups is None else groups
    count = np.bincount(units)
    raw = np.asarray(validation.losses, dtype=np.float64)
    theirs, ours = (np.bincount(units, losses) / count for losses in (crossed, raw))
    is_informative = len(count) >= TELLING_ROWS and np.ptp(theirs - ours) != 0
    if is_informative and paired_t(theirs, ours).above > 1 - WORSE:
        because = f"the temperature does harm (paired t-test, p < {WORSE:g}): {change}"
        return Calibration(1.0, before, after, because)
    fitted = best_temperature(validation.logits, validation.labels, smoothing=1.0)[0]
    because = f"{change}; fitted on {n:,} validation rows and merged into the last layer"
    return Calibration(fitted, before, after, because)


def reliability(outputs: Outputs) -> dict[str, Any]:
    """``{"bins": [{"low", "high", "n", "confidence", "accuracy"}]}``, from the least confident;
    no bins without rows, or if a logit is not finite."""
    if not len(outputs.labels) or not np.isfinite(outputs.logits).all():
        return {"bins": []}
    bins = confidence_bins(outputs)
    n = np.bincount(bins.member, minlength=bins.count)
    confidence = np.bincount(bins.member, bins.confidence, bins.count) / n
    accuracy = np.bincount(bins.member, bins.right, bins.count) / n
    return {
        "bins": [
            {
                "low": float(bins.edges[i]),
                "high": float(bins.edges[i + 1]),
                "n": int(n[i]),
                "confidence": float(confidence[i]),
                "accuracy": float(accuracy[i]),
            }
            for i in range(bins.count)
        ]
    }


def ece_estimate(outputs: Outputs, units: ResampledUnits, seed: int, level: float) -> Estimate:
    """ECE with an interval from a smooth calibration curve (``stats.temperature``).

    A bootstrap is not suitable: a resample's ECE is biased upwards once more, and in samples of 100
    its BCa interval covered the truth in 0 to 58 % of cases. The value itself is biased upwards
    too, so it can lie at the upper limit, which is never put below it.
    """
    if not np.isfinite(outputs.logits).all():
        return undefined("a logit is not finite")
    value = ece(outputs, ())
    if units.atoms < 2:
        return Estimate(value, level=level, why="no interval: there is one unit to resample")
    bins = confidence_bins(outputs)
    # How much less information grouped rows have than single ones: the variance of the groups'
    # summed residuals over that of the rows', at least 1.
    effect = 1.0
    if units.grouped:
        size = np.bincount(bins.member, minlength=bins.count)
        gap = np.bincount(bins.member, bins.right - bins.confidence, bins.count) / size
        # Without the gap of its bin, which is the quantity to measure and not noise.
        residual = bins.right - bins.confidence - gap[bins.member]
        total = float((residual**2).sum())
        by_group = sums(residual[:, None], units.codes, units.atoms)[:, 0]
        variance = float((by_group**2).sum()) * units.atoms / (units.atoms - 1)
        effect = max(1.0, variance / total) if total > 0 else 1.0
        # Few groups show this variance imprecisely: Student's t in place of the normal quantile.
        from scipy.special import stdtrit

        freedom = group_freedom(np.bincount(units.codes))
        effect *= (float(stdtrit(freedom, 0.5 + level / 2)) / normal_quantile(level)) ** 2
    drawn = generator(seed, "ece")
    low, high = calibration_error_interval(
        bins.confidence, bins.right, seed=drawn, level=level, effect=effect
    )
    n = len(outputs.labels)
    notes = [
        f"{count_phrase(bins.count, 'bin')} of equal mass; the value is biased upwards for small n"
    ]
    notes += [f"unreliable below n = {RELIABLE_FROM}"] if n < RELIABLE_FROM else []
    notes += [
        f"interval at the effective sample size ({units.atoms} groups)" if units.grouped else ""
    ]
    return Estimate(
        value, min(low, value), max(high, value), level, note="; ".join(filter(None, notes))
    )
