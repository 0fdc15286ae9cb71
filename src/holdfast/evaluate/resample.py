"""What is drawn when rows are resampled, and how a resampled number becomes an ``Estimate``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Estimate, Floats, Ints, Outputs
from holdfast.stats.bootstrap import Bootstrapped, group_codes

RESAMPLES = 2000
RELIABLE_FROM = 100
# benchmarks/few_groups.py: below it, intervals hold the truth clearly less often than they say.
FEWEST_GROUPS = 2


@dataclass(frozen=True, slots=True)
class Units:
    """The units of a resample: rows, or groups of rows. ``codes`` [n] is each row's unit."""

    codes: Ints
    atoms: int
    grouped: bool

    @classmethod
    def of(cls, outputs: Outputs) -> Units:
        return cls.by(outputs.groups, len(outputs.labels))

    @classmethod
    def by(cls, groups: npt.NDArray[Any] | None, rows: int) -> Units:
        """The units of so many rows: the rows themselves, or the ``groups`` [rows] they are in."""
        codes = group_codes(groups, rows)
        atoms = int(codes.max()) + 1 if len(codes) else 0
        return cls(codes, atoms, groups is not None)

    @property
    def multiplicity(self) -> Ints:
        return np.ones(self.atoms, dtype=np.int64)

    def spread(self, weights: Floats) -> Floats:
        """Weights of units [r, atoms] as weights of rows [r, n]."""
        return weights[:, self.codes] if self.grouped else weights


def too_few(units: Units) -> str | None:
    """Why an interval from these groups would be none: how groups differ cannot be seen from a
    few, whatever the number of rows. ``None`` where there are enough, or no groups."""
    if not units.grouped or units.atoms >= FEWEST_GROUPS:
        return None
    groups = f"{units.atoms} groups" if units.atoms != 1 else "one group"
    return (
        f"no interval: the rows are of {groups}, and below {FEWEST_GROUPS} it would hold the truth "
        "less often than it says; leave-one-group-out (each group tested once by a model that "
        "learned from the others) shows how groups differ"
    )


def undefined(why: str) -> Estimate:
    return Estimate(None, why=why)


def bootstrap_notes(units: Units) -> list[str]:
    """What qualifies every resampled interval of these units."""
    notes = []
    if len(units.codes) < RELIABLE_FROM:
        notes.append(f"unreliable below n = {RELIABLE_FROM}")
    if units.grouped:
        few = ", unreliable with so few" if units.atoms < 30 else ""
        notes.append(f"{units.atoms} groups resampled as groups{few}")
    return notes


def to_estimate(
    result: Bootstrapped, column: int, level: float, units: Units, *more: str
) -> Estimate:
    """One output of a bootstrap of ``units`` as an ``Estimate``, with what its resamples showed,
    and ``more``, as a note; from too few groups without an interval."""
    value, low, high = (float(part[column]) for part in (result.value, result.low, result.high))
    few, notes = too_few(units), [*more, *bootstrap_notes(units)]
    if few is not None and not np.isnan(value):
        return Estimate(value, level=level, why=few, note=_joined([*more]))
    defined = float(result.defined[column]) if len(result.draws) else 0.0
    if np.isnan(low):
        return Estimate(value, level=level, note=_joined([_why_none(result, defined), *notes]))
    said = [f"undefined in {1 - defined:.1%} of resamples"] if defined < 1 else []
    said += (
        ["no width: every resample gives the same value, which is too sure"] if low == high else []
    )
    return Estimate(value, low, high, level, note=_joined([*notes, *said]))


def _why_none(result: Bootstrapped, defined: float) -> str:
    if not len(result.draws):
        return "no interval: there is one unit to resample"
    return f"no interval: undefined in {1 - defined:.0%} of resamples"


def _joined(notes: list[str]) -> str | None:
    return "; ".join(notes) or None
