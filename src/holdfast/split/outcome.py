"""The outcome of a split: units that stay together, dropped rows, and the split of each row.

Duplicates and groups are joined transitively: a text in two groups joins both. That is harmless
while units stay small. A unit of more than ``MAX_UNIT_SHARE`` of the rows (fifteen essay prompts
and a dozen duplicated essays form one block) would make an even split impossible, and one text
would decide where entire groups go. Such groups stay separate, and a row that duplicates a row of a
more protected split is dropped (``find_crossing_copies``): training rows for validation and test
rows, validation rows for test rows. Rows that a given, protected table contains are dropped too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Ints
from holdfast.core.seeds import derive_seed
from holdfast.data.clean import named_groups
from holdfast.data.table import Table
from holdfast.duplicates.duplicates import CombinedRows, Duplicates, nearest_protected
from holdfast.duplicates.near_duplicates import mix_bits
from holdfast.duplicates.words import I64, U64, run_starts
from holdfast.split.strategies import STRATIFIED, Assignment, SplitStrategy

# SplitMix64's step: the golden ratio in 64 bits.
_STEP = np.uint64(0x9E3779B97F4A7C15)
# A third of a split of 15 %: a larger block makes such a split uneven by itself.
MAX_UNIT_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Units:
    """``of_row`` [n] the unit of each row; ``sizes`` [units]; ``row_keys`` [n] and ``keys`` [units]
    seeded 64-bit numbers that depend only on the content, by which rows and units are shuffled.
    ``largest_parted`` is the number of rows in the largest unit that duplicates had made of several
    groups and that was separated into them; 0 without one."""

    of_row: I64
    sizes: I64
    row_keys: U64
    keys: U64
    largest_parted: int = 0

    @property
    def shared(self) -> npt.NDArray[np.bool_]:
        """Whether each row shares its unit with another, [n]."""
        return np.asarray(self.sizes[self.of_row] > 1)

    def where(self, mask: npt.NDArray[np.bool_]) -> Units:
        """The units of the kept rows, with unchanged keys."""
        units, of_row = np.unique(self.of_row[mask], return_inverse=True)
        sizes = np.bincount(of_row, minlength=len(units))
        return Units(
            of_row.astype(np.int64),
            sizes,
            self.row_keys[mask],
            self.keys[units],
            self.largest_parted,
        )


def make_units(
    copy_groups: I64, contents: U64, labels: npt.NDArray[np.generic], groups: I64 | None, seed: int
) -> Units:
    """Join duplicates and groups (numbers [n] each, or ``None``) to units; ``contents`` [n] are
    hashes of the texts."""
    of_row, block = copy_groups, 0
    if groups is not None:
        of_row, block = _part_large_units(
            _join_copies_and_groups(copy_groups, groups), copy_groups, groups
        )
    of_row = np.unique(of_row, return_inverse=True)[1].astype(np.int64)
    row_keys = _row_keys(contents, labels, seed)
    keys = np.full(int(of_row.max(initial=-1)) + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    # The smallest key of its rows does not depend on their order.
    np.minimum.at(keys, of_row, row_keys)
    return Units(of_row, np.bincount(of_row, minlength=len(keys)), row_keys, keys, block)


def _join_copies_and_groups(copies: I64, groups: I64) -> I64:
    """Connected components of the graph whose nodes are duplicate groups and user groups, and whose
    edges are the rows."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first = int(copies.max(initial=-1)) + 1
    nodes = first + int(groups.max(initial=-1)) + 1
    # Both types of node in one graph: duplicates join their groups, and groups their duplicates.
    edges = (np.ones(len(copies), np.int8), (copies, first + groups))
    labels = connected_components(coo_array(edges, shape=(nodes, nodes)), directed=False)[1]
    return np.asarray(labels[copies], dtype=np.int64)


def _row_keys(contents: U64, labels: npt.NDArray[np.generic], seed: int) -> U64:
    """A key for each row. Equal texts are numbered (by label), so their keys differ and do not
    depend on the order of the file."""
    order = np.lexsort((labels, contents))
    new = run_starts(contents[order])
    number = np.empty(len(order), dtype=np.uint64)
    number[order] = np.arange(len(order)) - np.flatnonzero(new)[np.cumsum(new) - 1]
    # An array of one: NumPy warns if a scalar overflows, but not in an array.
    salt = np.full(1, derive_seed(seed, "division"), dtype=np.uint64)
    return mix_bits(mix_bits(contents ^ mix_bits(salt)) + number * _STEP)


def _part_large_units(of_row: I64, copies: I64, groups: I64) -> tuple[I64, int]:
    """Separate the units [n] in ``of_row`` that join several groups and hold more than
    ``MAX_UNIT_SHARE`` of the rows; also return the number of rows of the largest such unit.

    Each group then becomes a unit; a row that is a group by itself goes to the first group that has
    a duplicate of it.
    """
    sizes = np.bincount(of_row)
    members = np.bincount(groups)
    # A group of one row adds nothing to a block.
    real = members[groups] > 1
    pairs = np.unique(np.column_stack([of_row[real], groups[real]]), axis=0)
    groups_in = np.bincount(pairs[:, 0], minlength=len(sizes))
    large = (sizes > MAX_UNIT_SHARE * len(of_row)) & (groups_in > 1)
    parted = np.flatnonzero(large[of_row])
    if not len(parted):
        return of_row, 0
    unit = of_row.copy()
    unit[parted] = len(sizes) + _home_groups(copies[parted], groups[parted], members)
    return np.unique(unit, return_inverse=True)[1].astype(np.int64), int(sizes[large].max())


def _home_groups(copies: I64, groups: I64, members: I64) -> I64:
    """The group that each row goes to [n]: its own; for the only row of a group, the group of
    several rows that has a duplicate of it, else the first single-row group that has one."""
    home = groups.copy()
    is_singleton = members[groups] == 1
    first: dict[int, int] = {}
    # Rows of larger groups first, so that a single row finds one if there is any.
    for real in (True, False):
        for at in np.flatnonzero(is_singleton != real).tolist():
            first.setdefault(int(copies[at]), int(groups[at]))
    for at in np.flatnonzero(is_singleton).tolist():
        home[at] = first[int(copies[at])]
    return home


SPLIT_NAMES = ("train", "valid", "test")
NO_ROW = -1


@dataclass(frozen=True, slots=True)
class Drops:
    """Rows of one table that a protected table also contains: ``copy_of`` [rows] the position of
    the protected row that each duplicates (-1: none), ``similarity`` [rows], ``shares_group``
    [rows] whether it shares a group."""

    table_name: str
    protected_name: str
    copy_of: I64
    similarity: npt.NDArray[np.float32]
    shares_group: npt.NDArray[np.bool_]

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Whether each row is dropped."""
        return np.asarray((self.copy_of >= 0) | self.shares_group)


def find_drops(gathered: CombinedRows) -> tuple[Drops, ...]:
    """Source rows that duplicate rows of a given table, and rows of a given validation table that
    duplicate rows of the test table. The test table is never changed."""
    pairs = [
        (name, protected)
        # The test rows first: a duplicate of both is noted as a duplicate of a test row.
        for protected in ("test", "valid")
        for name in ("source", "valid")
        if protected in gathered.tables and name in gathered.tables and name != protected
    ]
    nearest = {
        protected: nearest_protected(gathered.duplicates, gathered.mask(protected))
        for protected in dict.fromkeys(protected for _, protected in pairs)
    }
    drops = []
    for name, protected in pairs:
        table, protected_table = gathered.tables[name], gathered.tables[protected]
        group = np.zeros(len(table), dtype=bool)
        if table.has_groups and protected_table.has_groups:
            protected_groups = named_groups(protected_table)
            group = np.array(
                [value in protected_groups for value in table.column("group")], dtype=bool
            )
        nearest_rows, span = nearest[protected], gathered.span(name)
        drops.append(
            Drops(name, protected, nearest_rows.copy_of[span], nearest_rows.similarity[span], group)
        )
    return tuple(drops)


def dropped_mask(drops: tuple[Drops, ...], name: str, rows: int) -> npt.NDArray[np.bool_]:
    """Whether each row of a table is dropped for any reason."""
    masks: list[Any] = [drop.mask for drop in drops if drop.table_name == name]
    return np.asarray(np.logical_or.reduce([np.zeros(rows, dtype=bool), *masks]))


@dataclass(frozen=True, slots=True)
class CrossingCopies:
    """Dropped rows: ``rows`` [k] positions in the source, ``copy_of`` [k] the row that each
    duplicates, ``split_of_copy`` [k] the split of that row."""

    rows: I64
    copy_of: I64
    split_of_copy: Assignment

    def __len__(self) -> int:
        return len(self.rows)


def find_crossing_copies(
    copies: Duplicates, kept_rows: I64, assignment: Assignment, order: tuple[int, ...]
) -> CrossingCopies:
    """The rows to drop so that no two splits share a duplicate.

    Parameters
    ----------
    kept_rows : [m] the rows that are split, as positions among the texts of ``copies``.
    assignment : [m] the split of each.
    order : the splits, the most protected first. A row of a later split that is an exact duplicate
        or a verified near-duplicate of a row of an earlier one is dropped; only links across a
        reported cut of a chain may cross.
    """
    forms, links = copies.exact[kept_rows], copies.links.where(~copies.crosses_cut)
    first_row_of_form = np.full(int(copies.exact.max(initial=-1)) + 1, NO_ROW, dtype=np.int64)
    rows: list[I64] = []
    of: list[I64] = []
    remaining = np.ones(len(kept_rows), dtype=bool)
    for number, split in enumerate(order):
        rows_here = np.flatnonzero(remaining & (assignment == split))
        if number:
            nearest = _nearest_rows(first_row_of_form, links.first, links.second)[forms[rows_here]]
            has_copy = nearest != NO_ROW
            rows.append(rows_here[has_copy])
            of.append(nearest[has_copy])
            rows_here = rows_here[~has_copy]
        # Backwards, so that the first row of each form is recorded.
        fresh = rows_here[::-1][first_row_of_form[forms[rows_here[::-1]]] == NO_ROW]
        first_row_of_form[forms[fresh]] = fresh
    nothing = np.empty(0, np.int64)
    at, other = np.concatenate([nothing, *rows]), np.concatenate([nothing, *of])
    return CrossingCopies(kept_rows[at], kept_rows[other], assignment[other])


def _nearest_rows(row_of_form: I64, first: Ints, second: Ints) -> I64:
    """A recorded row that each form [forms] duplicates: an exact duplicate before a linked one."""
    nearest = row_of_form.copy()
    for one, other in ((first, second), (second, first)):
        open_ = (nearest[one] == NO_ROW) & (row_of_form[other] != NO_ROW)
        nearest[one[open_]] = row_of_form[other[open_]]
    return nearest


@dataclass(frozen=True, slots=True)
class SplitOutcome:
    """The rows of all files (``combined``), the rows dropped as duplicates of given rows
    (``drops``), and the split of the others: ``kept_rows`` [m] positions in the source;
    ``assignment`` [m] into ``split_names``; ``row_assignment`` [m] the split in a plain stratified
    split of single rows. ``crossing`` are rows that were dropped later, as duplicates of a row of
    another group in another split; ``joined_pairs`` counts the pairs of different labels that
    are kept together, ``None`` where rows do not come in such pairs."""

    combined: CombinedRows
    drops: tuple[Drops, ...]
    kept_rows: I64
    split_names: tuple[str, ...]
    fractions: tuple[float, ...]
    units: Units
    assignment: Assignment
    row_assignment: Assignment
    crossing: CrossingCopies
    strategy: SplitStrategy = STRATIFIED
    joined_pairs: int | None = None

    @property
    def source(self) -> Table:
        """The rows of the source that are split [m]."""
        return self.combined.tables["source"].take(self.kept_rows)

    @property
    def moved(self) -> npt.NDArray[np.bool_]:
        """Which rows are in another split than they would be as units of their own [m]."""
        return np.asarray(self.units.shared & (self.assignment != self.row_assignment))

    def full_assignment(self) -> Assignment:
        """The split of each row of all files, an index into ``SPLIT_NAMES``; -1 for dropped."""
        assignment = np.full(len(self.combined.duplicates), -1, dtype=np.int8)
        numbers = np.array([SPLIT_NAMES.index(name) for name in self.split_names], dtype=np.int8)
        assignment[self.kept_rows] = numbers[self.assignment]
        for name in ("valid", "test"):
            if name in self.combined.tables:
                is_dropped = dropped_mask(self.drops, name, len(self.combined.tables[name]))
                assignment[self.combined.span(name)] = np.where(
                    is_dropped, -1, SPLIT_NAMES.index(name)
                )
        return assignment
