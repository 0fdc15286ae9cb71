"""Which rows of a table stand in another one too, as verified lexical copies, row by row.

What copies cost, as a value, and who is asked for it.
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


def leaks_with(gathered: CombinedRows, name: str) -> Leaks:
    """The pairs between the source and the table ``name``: of each source row the nearest row
    there, then of each row there that no pair names yet, its nearest source row. Linear in the
    rows, where all pairs of many equal texts would not be."""
    forth = _nearest(gathered, "source", name)
    back = _nearest(gathered, name, "source")
    own, theirs = gathered.starts["source"], gathered.starts[name]
    named = np.zeros(len(gathered.tables[name]), dtype=bool)
    named[forth.of - theirs] = True
    rest = ~named[back.at - theirs]
    source = np.concatenate([forth.at, back.of[rest]]) - own
    other = np.concatenate([forth.of, back.at[rest]]) - theirs
    similarity = np.concatenate([forth.similarity, back.similarity[rest]])
    order = np.lexsort((other, source))
    return Leaks(name, source[order], other[order], similarity[order])


@dataclass(frozen=True, slots=True)
class _Nearest:
    at: Positions
    of: Positions
    similarity: npt.NDArray[np.float32]


def _nearest(gathered: CombinedRows, rows: str, to: str) -> _Nearest:
    """Of each row of one table that copies one of another: both positions."""
    found = nearest_protected(gathered.duplicates, gathered.mask(to))
    span = gathered.span(rows)
    at = np.flatnonzero(found.copy_of[span] >= 0)
    return _Nearest(at + span.start, found.copy_of[span][at], found.similarity[span][at])


def duplicate_groups(gathered: CombinedRows) -> list[Positions]:
    """The groups of two source rows or more that copy each other, by position, the groups by their
    first row."""
    groups = gathered.duplicates.groups[gathered.span("source")]
    order = np.argsort(groups, kind="stable")
    ends = np.flatnonzero(np.diff(groups[order])) + 1
    parts = [part for part in np.split(order, ends) if len(part) > 1]
    return sorted(parts, key=lambda part: int(part[0]))


@dataclass(frozen=True, slots=True)
class Price:
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


class Prices(Protocol):
    """Whoever prices copies; ``None`` where that cannot be told. See ``price.py``."""

    def of_leaks(self, gathered: CombinedRows, pairs: Leaks) -> Price | None: ...

    def of_division(self, gathered: CombinedRows, units: Ints) -> Price | None: ...
