"""Rows → units: what must fall on one side together, because copied or of one group.

Copies of copies and groups of groups are followed to the end: a copy in two groups joins both.
That costs nothing while what is joined stays small. Where it would hold more than ``MOST`` of the
rows (fifteen essay prompts and a dozen copied essays are one block), no division could be even, and
one text would decide where whole groups go: there the groups stay apart, and the copy is left out
of training (``division.find_crossing``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.seeds import derive_seed
from holdfast.duplicates.candidates import mix
from holdfast.duplicates.words import I64, U64, run_starts

# SplitMix64's step: the golden ratio in 64 bits.
_STEP = np.uint64(0x9E3779B97F4A7C15)
# A third of a side of 15 %: a larger block makes such a side uneven by itself.
MOST = 0.05


@dataclass(frozen=True, slots=True)
class Units:
    """``of_row`` [n] the unit of each row; ``sizes`` [units]; ``row_keys`` [n] and ``keys`` [units]
    seeded 64-bit numbers from the content alone, by which rows and units are shuffled. ``block`` is
    the number of rows in the largest unit that copies had made of several groups and that was
    parted into them; 0 where none was."""

    of_row: I64
    sizes: I64
    row_keys: U64
    keys: U64
    block: int = 0

    @property
    def shared(self) -> npt.NDArray[np.bool_]:
        """Whether each row shares its unit with another, [n]."""
        return np.asarray(self.sizes[self.of_row] > 1)

    def where(self, kept: npt.NDArray[np.bool_]) -> Units:
        """The units of the rows that are kept; keys stay as they are."""
        units, of_row = np.unique(self.of_row[kept], return_inverse=True)
        sizes = np.bincount(of_row, minlength=len(units))
        return Units(
            of_row.astype(np.int64), sizes, self.row_keys[kept], self.keys[units], self.block
        )


def make_units(
    copy_groups: I64, contents: U64, labels: npt.NDArray[np.generic], groups: I64 | None, seed: int
) -> Units:
    """Join copies and groups (numbers [n] each, or ``None``); ``contents`` [n] hashes of texts."""
    of_row, block = copy_groups, 0
    if groups is not None:
        of_row, block = _part_large(_joined(copy_groups, groups), copy_groups, groups)
    of_row = np.unique(of_row, return_inverse=True)[1].astype(np.int64)
    row_keys = _row_keys(contents, labels, seed)
    keys = np.full(int(of_row.max(initial=-1)) + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    # The smallest key of its rows: it does not depend on their order either.
    np.minimum.at(keys, of_row, row_keys)
    return Units(of_row, np.bincount(of_row, minlength=len(keys)), row_keys, keys, block)


def _joined(copies: I64, groups: I64) -> I64:
    """Connected components of the graph whose nodes are copy groups and user groups, and whose
    edges are the rows."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first = int(copies.max(initial=-1)) + 1
    nodes = first + int(groups.max(initial=-1)) + 1
    # Both kinds of node in one graph: a copy joins its groups, and those all of their copies.
    edges = (np.ones(len(copies), np.int8), (copies, first + groups))
    labels = connected_components(coo_array(edges, shape=(nodes, nodes)), directed=False)[1]
    return np.asarray(labels[copies], dtype=np.int64)


def _row_keys(contents: U64, labels: npt.NDArray[np.generic], seed: int) -> U64:
    """A key for each row. Equal texts are numbered (by label), so that their keys differ and do
    not depend on which of them stands first in the file."""
    order = np.lexsort((labels, contents))
    new = run_starts(contents[order])
    number = np.empty(len(order), dtype=np.uint64)
    number[order] = np.arange(len(order)) - np.flatnonzero(new)[np.cumsum(new) - 1]
    # An array of one: NumPy warns where a single number wraps, and not in an array.
    salt = np.full(1, derive_seed(seed, "division"), dtype=np.uint64)
    return mix(mix(contents ^ mix(salt)) + number * _STEP)


def _part_large(of_row: I64, copies: I64, groups: I64) -> tuple[I64, int]:
    """Units [n] of rows that copies and groups have joined (``of_row``), in which those of several
    groups and more than ``MOST`` of the rows have fallen apart; and the rows of the largest such.

    There a unit is a group; a row that is a group by itself goes with the first group that has a
    copy of it.
    """
    sizes = np.bincount(of_row)
    members = np.bincount(groups)
    # A group of one row adds nothing to a block.
    real = members[groups] > 1
    pairs = np.unique(np.column_stack([of_row[real], groups[real]]), axis=0)
    groups_in = np.bincount(pairs[:, 0], minlength=len(sizes))
    large = (sizes > MOST * len(of_row)) & (groups_in > 1)
    parted = np.flatnonzero(large[of_row])
    if not len(parted):
        return of_row, 0
    unit = of_row.copy()
    unit[parted] = len(sizes) + _home(copies[parted], groups[parted], members)
    return np.unique(unit, return_inverse=True)[1].astype(np.int64), int(sizes[large].max())


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
