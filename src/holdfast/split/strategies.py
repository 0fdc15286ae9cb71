"""Split strategies other than by class: by time, by complete blocks of rows, or by hash.

Duplicates and groups stay together in each of them. A *block* is a group, a source or a topic; the
rows of some blocks are the test rows, so the score is one on blocks that the model never saw.

By time (``by_time``) the newest units are the test rows, the next newest the validation rows. A
unit is as old as its newest row, so no training row duplicates a later row; rows of the same time
stay together.

By hash (``by_hash``) a row's split depends only on its content, or on the name of its group: new
rows do not move existing ones. If near-duplicates fall into different splits, the row in the less
protected split is dropped.
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

    ``blocks`` [n] the index of each row's block in ``names``, for ``group``, ``source`` and
    ``topic``; ``held_out`` the blocks whose rows are the test rows; if empty, they are chosen by
    size. ``ages`` [n] numbers that grow with time, ``moments`` [n] the times as written.
    ``stable``: by hash. ``because`` is the reason, with ``{side}`` in place of the last split.
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
# By what share complete blocks may make a split larger than its fraction.
BLOCK_TOLERANCE = 0.2


def by_time(
    unit_of_row: I64, ages: npt.NDArray[np.float64], unit_keys: U64, fractions: Sequence[float]
) -> Assignment:
    """The split of each unit [units]: the oldest in the first split, the newest in the last.

    ``unit_of_row`` [n], ``ages`` [n], ``unit_keys`` [units] as for ``assign``. Each cut is where
    the age changes, as near as possible to the fraction of the rows. Raises ``SplitError`` if there
    are fewer different times than splits.
    """
    newest_age = np.full(len(unit_keys), -np.inf)
    np.maximum.at(newest_age, unit_of_row, ages)
    order = np.lexsort((unit_keys, newest_age))
    rows = np.cumsum(np.bincount(unit_of_row, minlength=len(unit_keys))[order])
    ends = np.flatnonzero(np.diff(newest_age[order]) > 0)
    if len(ends) < len(fractions) - 1:
        raise SplitError(
            "the times of the rows",
            f"change {count_phrase(len(ends), 'time')} (duplicates and groups count as their "
            f"newest row), but {len(fractions)} splits need {len(fractions) - 1} cuts between "
            "different times",
            None,
            "Use finer times, or split without data.split.by: time.",
        )
    assignment = np.zeros(len(unit_keys), dtype=np.int8)
    first_end = 0
    for number, share in enumerate(np.cumsum(fractions)[:-1].tolist(), 1):
        # Leave one cut for each later split.
        candidate_ends = ends[first_end : len(ends) - (len(fractions) - 1 - number)]
        nearest = int(np.argmin(np.abs(rows[candidate_ends] - share * rows[-1])))
        assignment[order[candidate_ends[nearest] + 1 :]] = number
        first_end += nearest + 1
    return assignment


def by_hash(identity: U64, fractions: Sequence[float], seed: int) -> Assignment:
    """The split of each row [n], from ``identity`` [n], a hash of its content or group."""
    salt = np.full(1, derive_seed(seed, "stable division"), dtype=np.uint64)
    # The upper 53 bits, which a float represents exactly: in [0, 1).
    position = (mix_bits(identity ^ mix_bits(salt)) >> np.uint64(11)).astype(np.float64) / (1 << 53)
    # The last split first: it stays the same if its fraction does, whatever the others are.
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
    """The split of each row [n]: complete blocks in the last split, the units of the other blocks
    stratified over the other splits.

    ``unit_of_row`` [n] numbers that duplicates and groups share, ``unit_keys`` [units]. A unit with
    a row in a block of the last split goes there with all its rows. Training and validation rows
    share blocks: validation rows of known blocks select models as well as others (2007.01434).
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
        rule = "has no row outside the test blocks (groups, sources or topics)"
        remedy = "Choose other test blocks with data.split.test_groups, or split by rows."
        raise SplitError(f"the class {name}" if len(missing) else name, rule, None, remedy)
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
    """The block of each row [n], with every unit in the block that most of its rows are in (the
    lowest number of ties)."""
    entries, counts = np.unique(
        np.column_stack([unit_of_row, block_of_row]), axis=0, return_counts=True
    )
    order = np.lexsort((entries[:, 1], -counts, entries[:, 0]))
    first = order[np.unique(entries[order, 0], return_index=True)[1]]
    majority = np.zeros(int(unit_of_row.max(initial=-1)) + 1, dtype=np.int64)
    majority[entries[first, 0]] = entries[first, 1]
    return majority[unit_of_row]


def _select_blocks(blocks: I64, labels: I64, block_keys: U64, share: float) -> tuple[int, ...]:
    """The blocks of the last split: in the order of ``block_keys`` [blocks], those that fit into
    its share of the rows and leave every class a row elsewhere; the smallest block if none fits.
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
    rule = f"cannot be held out: each of the {len(numbers)} contains all rows of some class"
    remedy = "Split by rows, or choose finer blocks."
    raise SplitError("the blocks (groups, sources or topics)", rule, None, remedy)
