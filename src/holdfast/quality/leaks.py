"""Rows that two tables share (verified duplicates and near-duplicates), and the protocol that
estimates by how much they inflate an accuracy.
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
    """Duplicate pairs of a source row and a row of one other table: ``source`` [m] and ``other``
    [m] positions in their tables, ``similarity`` [m] (1: equal except for case, space and
    punctuation). Every row of either table with a duplicate in the other is in at least one pair,
    with its nearest duplicate."""

    name: str
    source: Positions
    other: Positions
    similarity: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.source)


def pair_leaks(all_rows: CombinedRows, name: str) -> Leaks:
    """The duplicate pairs between the source and the table ``name``: each source row with its
    nearest row there, then each row there that has no pair yet with its nearest source row. The
    number of pairs is linear in the rows; that of all pairs of many equal texts is not."""
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
    """Each row of one table that duplicates one of another table, with both positions."""
    nearest = nearest_protected(all_rows.duplicates, all_rows.mask(target))
    span = all_rows.span(rows)
    at = np.flatnonzero(nearest.copy_of[span] >= 0)
    return _Nearest(at + span.start, nearest.copy_of[span][at], nearest.similarity[span][at])


def duplicate_groups(all_rows: CombinedRows) -> list[Positions]:
    """The groups of two or more source rows that duplicate each other, as positions, ordered by
    their first row."""
    groups = all_rows.duplicates.groups[all_rows.span("source")]
    order = np.argsort(groups, kind="stable")
    ends = np.flatnonzero(np.diff(groups[order])) + 1
    parts = [part for part in np.split(order, ends) if len(part) > 1]
    return sorted(parts, key=lambda part: int(part[0]))


@dataclass(frozen=True, slots=True)
class AccuracyInflation:
    """By how many percentage points an accuracy is too high, with an interval; ``copies`` of the
    scored ``rows`` are duplicates."""

    points: float
    low: float
    high: float
    copies: int
    rows: int

    def __str__(self) -> str:
        if self.low <= 0:
            return f"no more than {max(self.high, 0.0):.1f} points"
        return f"up to {self.points:.1f} points (95 % CI {self.low:.1f} to {self.high:.1f})"


class InflationEstimator(Protocol):
    """Estimates the inflation by duplicates; ``None`` if it cannot. See ``inflation.py``."""

    def from_leaks(self, gathered: CombinedRows, pairs: Leaks) -> AccuracyInflation | None: ...

    def from_split(self, gathered: CombinedRows, units: Ints) -> AccuracyInflation | None: ...
