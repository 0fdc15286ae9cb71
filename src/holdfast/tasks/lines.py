"""Ragged arrays: line i is ``values[offsets[i]:offsets[i + 1]]``; and rows of records of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Ints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")
Item = TypeVar("Item", bound=np.generic)


def offsets_of(lengths: Sequence[int] | Ints) -> Ints:
    """The offsets [n + 1] of lines with these lengths [n]."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def joined(lines: Sequence[Any]) -> tuple[Ints, Ints]:
    """The lines as one int32 array, and its offsets."""
    flat = np.concatenate(lines) if len(lines) else np.zeros(0)
    return flat.astype(np.int32), offsets_of([len(line) for line in lines])


def common_prefix_length(lines: Sequence[Sequence[int] | Ints]) -> int:
    """How many items all lines begin with alike; 0 without a line.

    >>> common_prefix_length([[1, 2, 3], [1, 2], [1, 2, 4]])
    2
    """
    if not lines:
        return 0
    shortest = min(map(len, lines))
    table = np.stack([np.asarray(line[:shortest]) for line in lines])
    differ = np.flatnonzero((table != table[0]).any(axis=0))
    return int(differ[0]) if len(differ) else shortest


def take_lines(values: npt.NDArray[Item], offsets: Ints, lines: Ints) -> npt.NDArray[Item]:
    """Concatenate these lines.

    Adjacent lines are returned as a view: the splits of an ordinary run share the memory of the
    encoded rows.
    """
    # A slice is a view; an index array would copy the tokens.
    if len(lines) and (np.diff(lines) == 1).all():
        return values[offsets[lines[0]] : offsets[lines[-1] + 1]]
    lengths = np.diff(offsets)[lines]
    begins = offsets_of(lengths)[:-1]
    return values[np.repeat(offsets[lines] - begins, lengths) + np.arange(int(lengths.sum()))]


def padded(ids: Ints, offsets: Ints, indices: Ints, fill: int) -> tuple[Ints, Any]:
    """Rows of flat ids as a matrix [rows, longest], padded on the right, int64, and a mask of where
    it holds ids.
    """
    starts, stops = offsets[indices], offsets[indices + 1]
    longest = max(1, int((stops - starts).max())) if len(indices) else 1
    place = np.arange(longest)[None, :]
    inside = place < (stops - starts)[:, None]
    if not len(ids):
        return np.full((len(indices), longest), fill, dtype=np.int64), inside
    source = np.minimum(starts[:, None] + place, len(ids) - 1)
    return np.where(inside, ids[source], fill).astype(np.int64), inside


def examples_at(row_of_example: Ints, positions: Ints) -> tuple[Ints, Ints]:
    """The examples of the rows at ``positions``, in that order, and the place of each one's row
    among them.

    ``row_of_example`` [n] is each example's row, ascending; a row may have none or several.
    """
    first, last = (np.searchsorted(row_of_example, positions, side) for side in ("left", "right"))
    counts = last - first
    places = np.repeat(np.arange(len(positions)), counts)
    indices = np.repeat(first - offsets_of(counts)[:-1], counts) + np.arange(int(counts.sum()))
    return indices, places


def take_rows(record: Record, positions: Ints | None) -> Record:
    """A record of arrays of one length, or its rows at ``positions``."""
    if positions is None:
        return record
    columns = {field.name: getattr(record, field.name) for field in fields(record)}
    columns_at = {name: None if c is None else c[positions] for name, c in columns.items()}
    return replace(record, **columns_at)
