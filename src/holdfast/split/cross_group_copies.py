"""Copies that stand in several groups: joined, or cut by leaving the copy out of training.

Groups that share a copy must fall on one side, or the copy must go. Joining costs nothing while
what is joined stays small. Where it would hold more than ``MOST`` of the rows (fifteen essay
prompts and a dozen copied essays are one block), no division could be even, and one text would
decide where whole groups go: there the groups stay apart, and a row that copies a row of a more
protected side is dropped: of training for validation and test rows, of validation for test rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Ints
from holdfast.duplicates.duplicates import Copies
from holdfast.duplicates.words import I64

# A third of a side of 15 %: a larger block makes such a side uneven by itself.
MOST = 0.05
NONE = -1


@dataclass(frozen=True, slots=True)
class Crossing:
    """Rows that were dropped: ``rows`` [k] positions in the source, ``of`` [k] the row that each
    copies, ``side`` [k] the side of that row."""

    rows: I64
    of: I64
    side: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.rows)


def part_large(of_row: I64, copies: I64, groups: I64) -> tuple[I64, int]:
    """Units [n] of rows that copies and groups have joined (``of_row``), in which those of several
    groups and more than ``MOST`` of the rows have fallen apart; and the rows of the largest such.

    There a unit is a group; a row that is a group by itself goes with the first group that has a
    copy of it.
    """
    sizes = np.bincount(of_row)
    members = np.bincount(groups)
    large = (sizes > MOST * len(of_row)) & (_groups_in(of_row, groups, members) > 1)
    parted = np.flatnonzero(large[of_row])
    if not len(parted):
        return of_row, 0
    unit = of_row.copy()
    unit[parted] = len(sizes) + _home(copies[parted], groups[parted], members)
    return np.unique(unit, return_inverse=True)[1].astype(np.int64), int(sizes[large].max())


def _groups_in(of_row: I64, groups: I64, members: I64) -> I64:
    """How many groups of several rows each unit holds."""
    # A group of one row adds nothing to a block.
    real = members[groups] > 1
    pairs = np.unique(np.column_stack([of_row[real], groups[real]]), axis=0)
    return np.bincount(pairs[:, 0], minlength=int(of_row.max()) + 1)


def _home(copies: I64, groups: I64, members: I64) -> I64:
    """The group that each row goes with [n]: its own, or for a row that is alone in it the group
    of several rows that holds a copy, else the first of the alone ones."""
    home = groups.copy()
    alone = members[groups] == 1
    first: dict[int, int] = {}
    # Rows of real groups first, so that a row alone finds one if there is any.
    for real in (True, False):
        for at in np.flatnonzero(alone != real).tolist():
            first.setdefault(int(copies[at]), int(groups[at]))
    for at in np.flatnonzero(alone).tolist():
        home[at] = first[int(copies[at])]
    return home


def find_crossing(
    copies: Copies, kept: I64, side: npt.NDArray[np.int8], order: tuple[int, ...]
) -> Crossing:
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
