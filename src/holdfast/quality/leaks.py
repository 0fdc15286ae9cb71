"""Which rows of a table are in another one too, as verified lexical duplicates; and the protocol
that estimates by how much they inflate an accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Ints
from holdfast.duplicates.duplicates import CombinedRows, nearest_protected

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Leaks:
    """Pairs of a source row and a row of one other table that copy each other: ``source`` [m] and
    ``other`` [m] positions in their tables, ``similarity`` [m] (1: equal but for case, space and
    punctuation). Every row of either table that has a copy in the other is in a pair at least once,
    with its nearest."""

    name: str
    source: Positions
    other: Positions
    similarity: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.source)


def pair_leaks(all_rows: CombinedRows, name: str) -> Leaks:
    """The pairs between the source and the table ``name``: of each source row the nearest row
    there, then of each row there that no pair names yet, its nearest source row. Linear in the
    rows, where all pairs of many equal texts would not be."""
    from_source = _nearest_rows(all_rows, "source", name)
    from_other = _nearest_rows(all_rows, name, "source")
    source_start, other_start = all_rows.starts["source"], all_rows.starts[name]
    is_paired = np.zeros(len(all_rows.tables[name]), dtype=bool)
    is_paired[from_source.nearest - other_start] = True
    rest = ~is_paired[from_other.row - other_start]
    source = np.concatenate([from_source.row, from_other.nearest[rest]]) - source_start
    other = np.concatenate([from_source.nearest, from_other.row[rest]]) - other_start
    similarity = np.concatenate([from_source.similarity, from_other.similarity[rest]])
    order = np.lexsort((other, source))
    return Leaks(name, source[order], other[order], similarity[order])


@dataclass(frozen=True, slots=True)
class _Nearest:
    row: Positions
    nearest: Positions
    similarity: npt.NDArray[np.float32]


def _nearest_rows(all_rows: CombinedRows, rows: str, target: str) -> _Nearest:
    """Of each row of one table that copies one of another: both positions."""
    nearest = nearest_protected(all_rows.duplicates, all_rows.mask(target))
    span = all_rows.span(rows)
    at = np.flatnonzero(nearest.copy_of[span] >= 0)
    return _Nearest(at + span.start, nearest.copy_of[span][at], nearest.similarity[span][at])


def duplicate_groups(all_rows: CombinedRows) -> list[Positions]:
    """The groups of two source rows or more that copy each other, by position, the groups by their
    first row."""
    groups = all_rows.duplicates.groups[all_rows.span("source")]
    order = np.argsort(groups, kind="stable")
    ends = np.flatnonzero(np.diff(groups[order])) + 1
    parts = [part for part in np.split(order, ends) if len(part) > 1]
    return sorted(parts, key=lambda part: int(part[0]))


@dataclass(frozen=True, slots=True)
class AccuracyInflation:
    """By how many points (hundredths) an accuracy is too good, with an interval; ``copies`` of the
    ``rows`` that are scored are copies."""

    points: float
    low: float
    high: float
    copies: int
    rows: int

    def __str__(self) -> str:
        if self.low <= 0:
            return f"no more than {max(self.high, 0.0):.1f} points"
        return f"up to {self.points:.1f} points ({self.low:.1f} to {self.high:.1f})"


class InflationEstimator(Protocol):
    """Estimates the inflation by duplicates; ``None`` where it cannot. See ``inflation.py``."""

    def from_leaks(self, gathered: CombinedRows, pairs: Leaks) -> AccuracyInflation | None: ...

    def from_split(self, gathered: CombinedRows, units: Ints) -> AccuracyInflation | None: ...
