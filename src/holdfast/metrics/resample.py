"""Resampling of rows or groups, and the ``Estimate`` of a resampled number."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from holdfast.core.records import Estimate, Floats, Ints, Outputs
from holdfast.core.seeds import generator
from holdfast.core.wording import percent_phrase
from holdfast.stats.bootstrap import (
    BootstrapResult,
    Statistic,
    bootstrap,
    fold_atoms,
    group_codes,
    sums,
)
from holdfast.stats.intervals import group_freedom

# Fifty draws lie beyond each limit of a 95 % interval.
RESAMPLES = 2000
# Each resample is a call of a user's function.
USER_METRIC_RESAMPLES = 300
RELIABLE_FROM = 100
# With two groups Student's t has one degree of freedom: the interval is wider than the scale.
FEWEST_GROUPS = 3
RATE = (0.0, 1.0)
POSITIVE = (0.0, math.inf)


@dataclass(frozen=True, slots=True)
class ResampledUnits:
    """The units of a resample: rows, or groups of rows. ``codes`` [n] is each row's unit."""

    codes: Ints
    atoms: int
    grouped: bool

    @classmethod
    def of(cls, outputs: Outputs) -> ResampledUnits:
        """The units of a classifier's outputs."""
        return cls.by(outputs.groups, len(outputs.labels))

    @classmethod
    def by(cls, groups: object, rows: int) -> ResampledUnits:
        """The units of ``rows`` rows: the rows themselves, or their ``groups`` [rows]."""
        codes = group_codes(groups, rows)
        atoms = int(codes.max()) + 1 if len(codes) else 0
        return cls(codes, atoms, groups is not None)

    @property
    def multiplicity(self) -> Ints:
        """How often each unit is in the sample: once, [atoms]."""
        return np.ones(self.atoms, dtype=np.int64)

    def spread(self, weights: Floats) -> Floats:
        """Weights of units [r, atoms] as weights of rows [r, n]."""
        return weights[:, self.codes] if self.grouped else weights


@dataclass(frozen=True, slots=True)
class Resampling:
    """How a score's intervals are computed: the ``units`` that are drawn, the ``seed``, the
    ``level`` of the intervals, and the number of ``resamples``."""

    units: ResampledUnits
    seed: int
    level: float
    resamples: int = RESAMPLES

    def bootstrap(self, statistic: Statistic, name: str, blocks: int = 2000) -> BootstrapResult:
        """The bootstrap of a statistic of the units' weights; ``name`` seeds the draws."""
        drawn = generator(self.seed, "bootstrap", name)
        return bootstrap(
            statistic,
            self.units.multiplicity,
            seed=drawn,
            level=self.level,
            resamples=self.resamples,
            blocks=blocks,
        )

    def sums(
        self, rows: Floats, numbers: Callable[[Floats], Floats], name: str
    ) -> tuple[BootstrapResult, Floats]:
        """The bootstrap of ``numbers``, a function of sums over rows, [r, d] → [r] or [r, outputs];
        ``rows`` [n, d] are what is summed. Also returns the sums over each unit, [atoms, d]. For
        many rows blocks are drawn, so that the cost no longer grows with them."""
        codes, atoms = fold_atoms(self.units.codes, self.units.atoms)
        table = sums(rows, codes, atoms)
        folds = replace(self, units=ResampledUnits(codes, atoms, self.units.grouped))
        return folds.bootstrap(lambda weights: numbers(weights @ table), name, 500), table

    def calls(
        self, compute: Callable[[Ints], float | None], name: str, within: tuple[float, float]
    ) -> Estimate:
        """The estimate of a user's function of rows, which is called for each resample with the
        positions of its rows: a row that was drawn twice is given twice. A resample on which it is
        undefined (of one class, for example) is left out, and counted in the note."""

        def one(counts: Ints) -> float:
            try:
                value = compute(np.repeat(np.arange(len(counts)), counts))
            except Exception:
                return math.nan
            return math.nan if value is None else value

        def statistic(weights: Floats) -> Floats:
            counts = self.units.spread(weights).astype(np.int64)
            return np.array([one(line) for line in counts])

        # Each block that is left out is one more call of the function.
        result = replace(self, resamples=USER_METRIC_RESAMPLES).bootstrap(statistic, name, 100)
        return self.estimate(result, within=within)

    def estimate(
        self,
        result: BootstrapResult,
        column: int = 0,
        *more: str,
        within: tuple[float, float] = RATE,
        counting: int | None = None,
    ) -> Estimate:
        """One output of a bootstrap of these units as an ``Estimate``, with remarks on its
        resamples, and ``more``, as a note.

        Groups have Student's limits from leaving out one at a time (of the square root for a number
        above 0 without an upper end), cut to the range ``within`` which the number lies by
        definition; fewer than ``FEWEST_GROUPS`` have none. If every
        resample gives the end of a finite range, ``edge`` gives the other limit, by the number of
        units ``counting`` (all of them, unless some do not affect the number).
        """
        units, level = self.units, self.level
        value, low, high = (float(part[column]) for part in (result.value, result.low, result.high))
        few, notes = too_few(units), [*more, *bootstrap_notes(units)]
        if few is not None and not np.isnan(value):
            return Estimate(value, level=level, why=few, note=_joined([*more]))
        defined = float(result.defined[column]) if len(result.draws) else 0.0
        remarks = (
            [f"undefined in {percent_phrase(1 - defined, 1)} of resamples"] if defined < 1 else []
        )
        if units.grouped:
            freedom = group_freedom(np.bincount(units.codes))
            lows, highs = result.student(freedom, level, root=within == POSITIVE and value > 0)
            low, high = max(float(lows[column]), within[0]), min(float(highs[column]), within[1])
            # That share is of draws, on which the limits for groups do not depend.
            remarks = []
        if np.isnan(low):
            why = f"undefined in {percent_phrase(1 - defined)} of resamples"
            if not len(result.draws):
                why = "there is one unit to resample"
            elif units.grouped:
                why = "undefined if some group is left out"
            return Estimate(value, level=level, why=f"no interval: {why}", note=_joined(notes))
        if low == high and value in within and math.isfinite(within[1]):
            low, high = edge(value, within, units.atoms if counting is None else counting, level)
            remarks = ["every resample gives the same value: the exact limit (Clopper and Pearson)"]
        elif low == high:
            remarks += ["no width: every resample gives the same value, which is overconfident"]
        return Estimate(value, low, high, level, note=_joined([*notes, *remarks]))


def too_few(units: ResampledUnits) -> str | None:
    """Why there is no interval from these groups: one or two do not show how much groups differ,
    whatever the number of rows. ``None`` if there are enough, or no groups."""
    if not units.grouped or units.atoms >= FEWEST_GROUPS:
        return None
    groups = f"{units.atoms} groups" if units.atoms != 1 else "one group"
    return (
        f"no interval: the rows are of {groups}, too few to show how much groups differ; "
        "leave-one-group-out (each group tested once by a model trained on the others) would"
    )


def undefined(why: str) -> Estimate:
    """An estimate without a value, with the reason."""
    return Estimate(None, why=why)


def bootstrap_notes(units: ResampledUnits) -> list[str]:
    """The caveats of every resampled interval of these units."""
    notes = []
    if len(units.codes) < RELIABLE_FROM:
        notes.append(f"unreliable below n = {RELIABLE_FROM}")
    if units.grouped:
        notes.append(f"jackknife over {units.atoms} groups, with Student's t")
    return notes


def parts_in(alone: Floats) -> list[int]:
    """How many units affect each number: those for which it is defined ``alone`` [units,
    numbers]."""
    return [int(count) for count in np.isfinite(alone).sum(axis=0)]


def edge(
    value: float, within: tuple[float, float], n: int, level: float = 0.95
) -> tuple[float, float]:
    """The interval of a number at an end of its range, to which all of ``n`` units contribute.

    With (1 − level) ÷ 2 = α, this many units without an exception leave up to 1 − α^(1/n) of all
    units with one (Clopper and Pearson 1934), and at worst each moves the number to its other end:
    [high − span · (1 − α^(1/n)), high], likewise at the lower end. No unit: the whole range.
    """
    low, high = within
    share = 1.0 if not n else 1 - ((1 - level) / 2) ** (1 / n)
    reach = (high - low) * share
    return (max(low, high - reach), high) if value == high else (low, min(high, low + reach))


def _joined(notes: list[str]) -> str | None:
    return "; ".join(notes) or None
