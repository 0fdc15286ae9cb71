"""What one division knows, from the copies to the sides: the record that notes and findings are
made of.

Rows are dropped that a given, protected table holds too; and where groups that share a copy stay
apart (``units.py``), a row that copies a row of a more protected side: of training for validation
and test rows, of validation for test rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Ints
from holdfast.data.table import Table
from holdfast.duplicates.duplicates import Copies
from holdfast.duplicates.gather import AllRows, nearest_protected
from holdfast.duplicates.words import I64
from holdfast.split.units import Units
from holdfast.split.ways import PLAIN, Sides, SplitStrategy

SIDES = ("train", "valid", "test")
NONE = -1


@dataclass(frozen=True, slots=True)
class Drops:
    """Rows of one table that another, protected one holds too: ``of`` [rows] the position of the
    protected row they copy (-1: none), ``similarity`` [rows], ``group`` [rows] shares a group."""

    name: str
    protected: str
    of: I64
    similarity: npt.NDArray[np.float32]
    group: npt.NDArray[np.bool_]

    @property
    def rows(self) -> npt.NDArray[np.bool_]:
        """Whether each row is dropped."""
        return np.asarray((self.of >= 0) | self.group)


def find_drops(gathered: AllRows) -> tuple[Drops, ...]:
    """Source rows that copy a given table's, and rows of a given validation table that copy the
    test table's. The test table is never touched."""
    pairs = [
        (name, protected)
        # The test rows first: a row that copies both is noted as a copy of a test row.
        for protected in ("test", "valid")
        for name in ("source", "valid")
        if protected in gathered.tables and name in gathered.tables and name != protected
    ]
    nearest = {
        protected: nearest_protected(gathered.copies, gathered.mask(protected))
        for protected in dict.fromkeys(protected for _, protected in pairs)
    }
    drops = []
    for name, protected in pairs:
        table, theirs = gathered.tables[name], gathered.tables[protected]
        group = np.zeros(len(table), dtype=bool)
        if table.has_groups and theirs.has_groups:
            taken = set(theirs.column("group"))
            group = np.array([value in taken for value in table.column("group")], dtype=bool)
        near, span = nearest[protected], gathered.span(name)
        drops.append(Drops(name, protected, near.of[span], near.similarity[span], group))
    return tuple(drops)


def dropped(drops: tuple[Drops, ...], name: str, rows: int) -> npt.NDArray[np.bool_]:
    """Whether each row of a table is dropped for any reason."""
    masks: list[Any] = [drop.rows for drop in drops if drop.name == name]
    return np.asarray(np.logical_or.reduce([np.zeros(rows, dtype=bool), *masks]))


@dataclass(frozen=True, slots=True)
class Crossing:
    """Rows that were dropped: ``rows`` [k] positions in the source, ``of`` [k] the row that each
    copies, ``side`` [k] the side of that row."""

    rows: I64
    of: I64
    side: Sides

    def __len__(self) -> int:
        return len(self.rows)


def find_crossing(copies: Copies, kept: I64, side: Sides, order: tuple[int, ...]) -> Crossing:
    """The rows to drop so that no copy stands on two sides.

    Parameters
    ----------
    kept : [m] the rows that are divided, as positions among the texts of ``copies``.
    side : [m] the side of each.
    order : the sides, the most protected first. A row of a later side that is an exact or a
        verified near-copy of a row of an earlier one is dropped; links across a reported cut of
        chains may cross.
    """
    forms, links = copies.exact[kept], copies.links.where(~copies.permitted)
    holder = np.full(int(copies.exact.max(initial=-1)) + 1, NONE, dtype=np.int64)
    rows: list[I64] = []
    of: list[I64] = []
    left = np.ones(len(kept), dtype=bool)
    for number, chosen in enumerate(order):
        rows_here = np.flatnonzero(left & (side == chosen))
        if number:
            nearest = _nearest(holder, links.first, links.second)[forms[rows_here]]
            gone = nearest != NONE
            rows.append(rows_here[gone])
            of.append(nearest[gone])
            rows_here = rows_here[~gone]
        # Backwards, so that the first row of a form is the one that is named.
        fresh = rows_here[::-1][holder[forms[rows_here[::-1]]] == NONE]
        holder[forms[fresh]] = fresh
    nothing = np.empty(0, np.int64)
    at, other = np.concatenate([nothing, *rows]), np.concatenate([nothing, *of])
    return Crossing(kept[at], kept[other], side[other])


def _nearest(holder: I64, first: Ints, second: Ints) -> I64:
    """A held row that each form is a copy of [forms], itself before its links."""
    nearest = holder.copy()
    for one, other in ((first, second), (second, first)):
        open_ = (nearest[one] == NONE) & (holder[other] != NONE)
        nearest[one[open_]] = holder[other[open_]]
    return nearest


@dataclass(frozen=True, slots=True)
class Division:
    """``rows`` of all files, those that are dropped as copies of given rows (``drops``), and where
    the others go: ``kept`` [m] positions in the source; ``side`` [m] into
    ``names``; ``plain`` [m] the side in a plain stratified division of single rows. ``crossing``
    are rows that were dropped after all, as copies of a row of another group on another side."""

    rows: AllRows
    drops: tuple[Drops, ...]
    kept: I64
    names: tuple[str, ...]
    fractions: tuple[float, ...]
    units: Units
    side: Sides
    plain: Sides
    crossing: Crossing
    way: SplitStrategy = PLAIN

    @property
    def source(self) -> Table:
        """The rows of the source that are divided [m]."""
        return self.rows.tables["source"].take(self.kept)

    @property
    def moved(self) -> npt.NDArray[np.bool_]:
        """Which rows stand elsewhere than they would as units of their own [m]."""
        return np.asarray(self.units.shared & (self.side != self.plain))

    def all_sides(self) -> Sides:
        """The side of each row of all files, an index into ``SIDES``; -1 for dropped."""
        side = np.full(len(self.rows.copies), -1, dtype=np.int8)
        numbers = np.array([SIDES.index(name) for name in self.names], dtype=np.int8)
        side[self.kept] = numbers[self.side]
        for name in ("valid", "test"):
            if name in self.rows.tables:
                out = dropped(self.drops, name, len(self.rows.tables[name]))
                side[self.rows.span(name)] = np.where(out, -1, SIDES.index(name))
        return side
