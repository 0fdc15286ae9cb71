"""How many validation rows stand behind the values of a log, where it tells."""

from __future__ import annotations

import numpy as np

from holdfast.core.curves import WHOLE, Series
from holdfast.core.records import Decision
from holdfast.plugins.logs import Log

NAMES = {
    name
    for side in ("eval", "val", "valid")
    for name in (f"{side}_samples", f"{side}_rows", f"n_{side}")
}
MOST = 5_000  # rows: above, any value is close to some fraction
DISTINCT = 4  # values that must all be fractions of the same number
CHANCE = 0.01  # that they are by accident, over every number tried


def valid_rows(
    log: Log, valid: Series | None, metric: Series | None
) -> tuple[int, Decision] | None:
    """The number with where it was found: a column that says so; the Trainer's rows a second times
    its seconds; an accuracy whose values are all fractions of one number. ``None`` without."""
    counted = _column(log) or _by_speed(log, valid) or _by_fractions(metric)
    if counted is None:
        return None
    rows, because = counted
    return rows, Decision("validation rows", str(rows), because)


def _column(log: Log) -> tuple[int, str] | None:
    for name, series in log.columns.items():
        if name.lower() in NAMES and np.isfinite(series.values[-1]) and series.values[-1] >= 1:
            return round(float(series.values[-1])), f"the column {name}"
    return None


def _by_speed(log: Log, valid: Series | None) -> tuple[int, str] | None:
    """``eval_loss`` stands beside ``eval_runtime`` and ``eval_samples_per_second``; so do the
    names of each of several evaluation sets."""
    if valid is None:
        return None
    stem = valid.name.rpartition("_")[0]
    while stem:
        time = log.columns.get(f"{stem}_runtime")
        speed = log.columns.get(f"{stem}_samples_per_second")
        if time is not None and speed is not None and len(time) == len(speed):
            # Both are logged rounded, to three or four decimals: the median takes most of that out.
            rows = float(np.median(time.values * speed.values))
            named = f"{stem}_runtime times {stem}_samples_per_second"
            return (round(rows), named) if np.isfinite(rows) and rows >= 1 else None
        stem = stem.rpartition("_")[0]
    return None


def _by_fractions(metric: Series | None) -> tuple[int, str] | None:
    """The least number of rows of which every accuracy is a whole part, as far as its decimals go.

    With d decimals a value v is k / n only where n v lies within n / 2·10⁻ᵈ of a whole number,
    which m values do by accident with probability (n 10⁻ᵈ)ᵐ; summed over the numbers tried, this
    must stay below 1 %. The true number may be a multiple: the interval is then too wide, not too
    narrow. A mean over batches of unequal size, or another metric, fits no number.
    """
    if metric is None or "acc" not in metric.name.lower():
        return None
    values = np.unique(metric.finite.values)
    scale = 100.0 if values.max(initial=0.0) > WHOLE else 1.0
    values = values[(values > 0) & (values < scale)]
    if len(values) < DISTINCT:
        return None
    # The most decimals with which the values were written.
    # Twelve: further ones of a float64 are its own rounding.
    decimals = max(len(f"{v:.12f}".rstrip("0").partition(".")[2]) for v in values)
    slack = 10.0**-decimals / scale
    accident = 0.0
    for rows in range(2, MOST):
        # Added up over all numbers tried: the search itself makes a fit by accident likelier.
        accident += min(1.0, rows * slack) ** len(values)
        if accident > CHANCE:
            return None
        parts = rows * values / scale
        if np.all(np.abs(parts - np.round(parts)) <= rows * slack / 2 + 1e-9):
            return rows, f"every value of {metric.name} is a whole part of that many"
    return None
