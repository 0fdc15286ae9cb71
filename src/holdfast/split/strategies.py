"""Ways to split other than evenly by class: by time, by whole blocks of rows, or by hash.

What must stay together, copies and groups, stays together in every one of them. A *block* is a
group, a source or a topic; the rows of some blocks are the test rows, so that the score is one of
blocks that the model never saw.

By time (``by_time``) the newest units are the test rows, the next newest the validation rows. A
unit is as old as its newest row, so nothing that is learned copies a later row; rows of one moment
are not parted.

By hash (``by_hash``) a row's split follows from its own content, or from the name of its group, and
from nothing else: rows that are added move none. A near-duplicate that falls on another split is
dropped from the less protected one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import SplitError
from holdfast.core.seeds import derive_seed
from holdfast.core.wording import count_phrase
from holdfast.duplicates.near_duplicates import mix_bits
from holdfast.duplicates.words import I64, U64
from holdfast.split.assign import assign

By = Literal["rows", "group", "source", "topic", "time"]
Assignment = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class SplitStrategy:
    """How a table is split.

    ``blocks`` [n] the number of each row's block into ``names``, for ``group``, ``source`` and
    ``topic``; ``held_out`` the blocks whose rows are the test rows, chosen by size where there are
    none. ``ages`` [n] numbers that grow with time, ``moments`` [n] the same as written.
    ``stable``: by hash. ``because`` says why, with ``{side}`` in place of the last split.
    """

    by: By = "rows"
    because: str = ""
    blocks: I64 | None = None
    names: tuple[str, ...] = ()
    held_out: tuple[int, ...] = ()
    ages: npt.NDArray[np.float64] | None = None
    moments: tuple[str, ...] = ()
    stable: bool = False


STRATIFIED = SplitStrategy()
# How far beyond its share whole blocks may make a split.
BLOCK_TOLERANCE = 0.2


def by_time(
    unit_of_row: I64, ages: npt.NDArray[np.float64], unit_keys: U64, fractions: Sequence[float]
) -> Assignment:
    """The split of each unit [units]: the oldest on the first split, the newest on the last.

    ``unit_of_row`` [n], ``ages`` [n], ``unit_keys`` [units] as for ``assign``. The cut nearest to
    each fraction of the rows is taken at which the age changes. Raises ``SplitError`` where there
    are fewer different moments than splits.
    """
    newest_age = np.full(len(unit_keys), -np.inf)
    np.maximum.at(newest_age, unit_of_row, ages)
    order = np.lexsort((unit_keys, newest_age))
    rows = np.cumsum(np.bincount(unit_of_row, minlength=len(unit_keys))[order])
    ends = np.flatnonzero(np.diff(newest_age[order]) > 0)
    if len(ends) < len(fractions) - 1:
        raise SplitError(
            "the times of the rows",
            f"change {count_phrase(len(ends), 'time')} (copies and groups count as their "
            "newest row) "
            f"where {len(fractions)} sides need {len(fractions) - 1} cuts between moments",
            None,
            "Give finer times, or divide without data.split.by: time.",
        )
    assignment = np.zeros(len(unit_keys), dtype=np.int8)
    first_end = 0
    for number, share in enumerate(np.cumsum(fractions)[:-1].tolist(), 1):
        # Each later split keeps a cut of its own.
        candidate_ends = ends[first_end : len(ends) - (len(fractions) - 1 - number)]
        nearest = int(np.argmin(np.abs(rows[candidate_ends] - share * rows[-1])))
        assignment[order[candidate_ends[nearest] + 1 :]] = number
        first_end += nearest + 1
    return assignment


def by_hash(identity: U64, fractions: Sequence[float], seed: int) -> Assignment:
    """The split of each row [n], by ``identity`` [n], a hash of what it is."""
    salt = np.full(1, derive_seed(seed, "stable division"), dtype=np.uint64)
    # The upper 53 bits, which a float holds exactly: in [0, 1).
    position = (mix_bits(identity ^ mix_bits(salt)) >> np.uint64(11)).astype(np.float64) / (1 << 53)
    # The last split first: where its share stays, it stays, whatever the others' are.
    edges = np.cumsum(list(fractions)[::-1])[:-1]
    return (len(fractions) - 1 - np.searchsorted(edges, position, side="right")).astype(np.int8)


def by_blocks(
    unit_of_row: I64,
    block_of_row: I64,
    labels: I64,
    unit_keys: U64,
    fractions: tuple[float, ...],
    classes: tuple[str, ...],
    held_out: tuple[int, ...],
) -> Assignment:
    """The split of each row [n]: whole blocks on the last split, the others' units divided evenly.

    ``unit_of_row`` [n] numbers that copies and groups share, ``unit_keys`` [units]. A unit that
    reaches into a block of the last split stands there with all its rows. The other splits are rows
    of known blocks: validation rows of the training's own blocks choose as well as any others
    (2007.01434).
    """
    last = len(fractions) - 1
    if not held_out:
        block_keys = np.full(int(block_of_row.max()) + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
        np.minimum.at(block_keys, block_of_row, unit_keys[unit_of_row])
        held_out = _select_blocks(block_of_row, labels, block_keys, fractions[last])
    in_held_out = np.zeros(len(unit_keys), dtype=bool)
    in_held_out[unit_of_row[np.isin(block_of_row, held_out)]] = True
    assignment = np.full(len(unit_of_row), last, dtype=np.int8)
    remaining_rows = np.flatnonzero(~in_held_out[unit_of_row])
    missing = np.setdiff1d(labels, labels[remaining_rows])
    if len(missing) or not len(remaining_rows):
        name = repr(classes[int(missing[0])]) if len(missing) else "every class"
        raise SplitError(
            f"the class {name}" if len(missing) else name,
            "has no row outside the blocks (groups, sources or topics) that are the test rows",
            None,
            "Hold other blocks out with data.split.held, or divide by rows.",
        )
    if last > 1:
        shares = tuple(share / sum(fractions[:last]) for share in fractions[:last])
        remaining_units, numbers = np.unique(unit_of_row[remaining_rows], return_inverse=True)
        assignment[remaining_rows] = assign(
            numbers, labels[remaining_rows], unit_keys[remaining_units], shares, classes
        )[numbers]
    else:
        assignment[remaining_rows] = 0
    return assignment


def majority_blocks(unit_of_row: I64, block_of_row: I64) -> I64:
    """The block of each row [n], where every unit stands in the one that most of its rows are of
    (the lowest number of several)."""
    entries, counts = np.unique(
        np.column_stack([unit_of_row, block_of_row]), axis=0, return_counts=True
    )
    order = np.lexsort((entries[:, 1], -counts, entries[:, 0]))
    first = order[np.unique(entries[order, 0], return_index=True)[1]]
    majority = np.zeros(int(unit_of_row.max(initial=-1)) + 1, dtype=np.int64)
    majority[entries[first, 0]] = entries[first, 1]
    return majority[unit_of_row]


def _select_blocks(blocks: I64, labels: I64, block_keys: U64, share: float) -> tuple[int, ...]:
    """The blocks of the last split: in the order of ``block_keys`` [blocks], those that still fit
    into its share of the rows and leave every class a row elsewhere; the smallest where none fits.
    """
    numbers, blocks = np.unique(blocks, return_inverse=True)
    counts = np.zeros((len(numbers), int(labels.max()) + 1), dtype=np.int64)
    np.add.at(counts, (blocks, labels), 1)
    sizes, remaining_counts = counts.sum(axis=1), counts.sum(axis=0)
    present = remaining_counts > 0
    target_rows, selected_rows, selected = share * len(blocks), 0, []
    for position in np.argsort(block_keys[numbers], kind="stable").tolist():
        fits = selected_rows + sizes[position] <= (1 + BLOCK_TOLERANCE) * target_rows
        if fits and ((remaining_counts - counts[position])[present] > 0).all():
            selected.append(int(numbers[position]))
            selected_rows, remaining_counts = (
                selected_rows + int(sizes[position]),
                remaining_counts - counts[position],
            )
        if selected_rows >= target_rows:
            break
    if selected:
        return tuple(selected)
    for position in np.argsort(sizes, kind="stable").tolist():
        if ((remaining_counts - counts[position])[present] > 0).all():
            return (int(numbers[position]),)
    raise SplitError(
        "the blocks (groups, sources or topics)",
        f"are {len(numbers)}, of which none can be held out whole: each holds all rows of some "
        "class",
        None,
        "Divide by rows, or choose finer blocks.",
    )
