"""Answered numbers to scores with intervals: errors, R² and rank correlation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Estimate, Floats, Ints, Scores
from holdfast.core.seeds import generator
from holdfast.metrics.resample import POSITIVE, RESAMPLES, ResampledUnits, to_estimate, undefined
from holdfast.stats.bootstrap import bootstrap, folded, sums

METRICS = ("mae", "rmse", "r2", "spearman", "loss")
WITHIN = {"mae": POSITIVE, "rmse": POSITIVE, "r2": (-math.inf, 1.0), "loss": POSITIVE}
# Rows times resamples whose ranks may be counted: 2,000 resamples up to 10,000 rows.
RANKED_ROWS = 20_000_000


@dataclass(frozen=True, slots=True)
class NumberOutputs:
    """A model's answer for some rows: ``labels`` and ``answers`` [n] in the user's unit, float64;
    ``losses`` [n] in squared deviations of the training rows."""

    rows: Ints
    labels: Floats
    answers: Floats
    losses: Floats
    groups: npt.NDArray[Any] | None = None

    @property
    def units(self) -> ResampledUnits:
        """What is drawn in a resample: rows, or the groups they are in."""
        return ResampledUnits.by(self.groups, len(self.rows))


def score_numbers(
    outputs: NumberOutputs, *, seed: int = 0, level: float = 0.95, resamples: int = RESAMPLES
) -> Scores:
    """``mae``, ``rmse`` (user's unit), ``r2`` = 1 − Σ e² ÷ Σ (y − ȳ)² with the mean of these rows,
    ``spearman`` (average ranks for ties), ``loss``.

    Intervals are BCa over rows, or Student's over groups. Undefined, with the reason: no rows; R²
    and rank correlation where the numbers do not vary; a number that is not finite.
    """
    if not len(outputs.rows):
        return Scores(0, dict.fromkeys(METRICS, undefined("there are no rows")))
    if not (np.isfinite(outputs.answers).all() and np.isfinite(outputs.losses).all()):
        nothing = undefined("an answer is not finite")
        return Scores(len(outputs.rows), dict.fromkeys(METRICS, nothing))
    units = outputs.units
    codes, atoms = folded(units.codes, units.atoms)
    table = sums(_table(outputs), codes, atoms)
    result = bootstrap(
        lambda weights: _values(weights @ table),
        np.ones(atoms, dtype=np.int64),
        seed=generator(seed, "bootstrap", "numbers"),
        level=level,
        resamples=resamples,
        blocks=500,
    )
    found = {
        name: to_estimate(result, column, level, units, within=WITHIN[name])
        for column, name in enumerate(("mae", "rmse", "r2", "loss"))
    }
    if outputs.labels.min() == outputs.labels.max():
        found["r2"] = undefined("the numbers of these rows do not vary")
    found["spearman"] = _spearman(outputs, units, seed, level, resamples)
    return Scores(len(outputs.rows), {name: found[name] for name in METRICS})


def _table(outputs: NumberOutputs) -> Floats:
    gaps = outputs.answers - outputs.labels
    # Sums of squares of numbers far from 0 lose digits; a shift leaves their spread as it is.
    level = outputs.labels - outputs.labels.mean()
    ones = np.ones(len(gaps))
    return np.column_stack([np.abs(gaps), gaps**2, level, level**2, outputs.losses, ones])


def _values(totals: Floats) -> Floats:
    errors, squares, level, spread, losses, n = totals.T
    with np.errstate(divide="ignore", invalid="ignore"):
        around = spread - level**2 / n
        # The spread of equal numbers is rounding, and an R² by it anything.
        r2 = np.where(around > 1e-12 * np.maximum(spread, 1e-300), 1 - squares / around, np.nan)
        return np.stack([errors / n, np.sqrt(squares / n), r2, losses / n], axis=1)


def _spearman(
    outputs: NumberOutputs, units: ResampledUnits, seed: int, level: float, resamples: int
) -> Estimate:
    for values, what in ((outputs.labels, "numbers"), (outputs.answers, "answers")):
        if values.min() == values.max():
            return undefined(f"the {what} of these rows do not vary")
    ranked = _ranked(outputs.labels), _ranked(outputs.answers)

    def correlation(weights: Floats) -> Floats:
        rows = units.spread(weights)
        first, second = (ranks.under(rows) for ranks in ranked)
        return _pearson(first, second, rows)

    # A resample takes as many steps as there are rows.
    count = min(resamples, max(400, RANKED_ROWS // len(outputs.rows)))
    result = bootstrap(
        correlation,
        units.multiplicity,
        seed=generator(seed, "bootstrap", "spearman"),
        level=level,
        resamples=count,
        blocks=300,
    )
    notes = [f"{count} resamples, for time"] if count < resamples else []
    return to_estimate(result, 0, level, units, *notes, within=(-1.0, 1.0))


@dataclass(frozen=True, slots=True)
class _Ranked:
    """The rows in ``order`` of a number; ``starts`` says where each distinct number begins in it,
    ``place`` [n] which distinct number a row has."""

    order: Ints
    starts: Ints
    place: Ints

    def under(self, weights: Floats) -> Floats:
        """Average ranks [r, n] where each row stands ``weights`` [r, n] times."""
        times = np.add.reduceat(weights[:, self.order], self.starts, axis=1)
        middle = np.cumsum(times, axis=1) - times / 2 + 0.5
        return np.asarray(middle[:, self.place])


def _ranked(values: Floats) -> _Ranked:
    order = np.argsort(values, kind="stable")
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return _Ranked(order, np.cumsum(count) - count, place.reshape(-1))


def _pearson(first: Floats, second: Floats, weights: Floats) -> Floats:
    n = weights.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Pearson's correlation of the ranks: every resample has ties, under which the shorter
        # formula with squared differences of ranks is wrong.
        one = first - (weights * first).sum(axis=1, keepdims=True) / n
        two = second - (weights * second).sum(axis=1, keepdims=True) / n
        joint = (weights * one * two).sum(axis=1)
        size = np.sqrt((weights * one**2).sum(axis=1) * (weights * two**2).sum(axis=1))
        return np.where(size > 1e-12, joint / size, np.nan)
