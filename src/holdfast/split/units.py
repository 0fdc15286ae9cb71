"""Rows → units: what must fall on one side together, because copied or of one group.

Copies of copies and groups of groups are followed to the end: a copy in two groups joins both, as
long as what is joined stays small (``crossing.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.seeds import derive_seed
from holdfast.duplicates.candidates import mix
from holdfast.duplicates.words import I64, U64
from holdfast.split.cross_group_copies import part_large

# SplitMix64's step: the golden ratio in 64 bits.
_STEP = np.uint64(0x9E3779B97F4A7C15)


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
        joined = _joined(copy_groups, groups)
        of_row, block = part_large(joined, copy_groups, groups)
    of_row = np.unique(of_row, return_inverse=True)[1].astype(np.int64)
    row_keys = _row_keys(contents, labels, seed)
    keys = np.full(int(of_row.max(initial=-1)) + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    # The smallest key of its rows: it does not depend on their order either.
    np.minimum.at(keys, of_row, row_keys)
    return Units(of_row, np.bincount(of_row, minlength=len(keys)), row_keys, keys, block)


def number_groups(names: list[str] | None) -> I64 | None:
    """Group names as numbers [n]."""
    if names is None:
        return None
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


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
    ordered = contents[order]
    new = np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]
    first = np.flatnonzero(new)[np.cumsum(new) - 1] if len(ordered) else order
    number = np.empty(len(ordered), dtype=np.uint64)
    number[order] = (np.arange(len(ordered)) - first).astype(np.uint64)
    # An array of one: NumPy warns where a single number wraps, and not in an array.
    salt = np.full(1, derive_seed(seed, "division"), dtype=np.uint64)
    return mix(mix(contents ^ mix(salt)) + number * _STEP)
