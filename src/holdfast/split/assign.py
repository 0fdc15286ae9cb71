"""Assign units to splits, stratified by class. A unit is a set of rows that must stay together.

1. Each class gets a target in each split: its rows × the split's fraction, rounded so that no class
   is off by a row and the splits' totals stay correct; at least one row per split.
2. Units of several rows, largest first, go where they least increase Σ (placed − target)² ÷ target
   over their classes.
3. Units of one row fill up each class to its targets, in the order of their keys.
4. A split that lacks a class takes the class's smallest unit that another split can spare.

With units of one row every class is within one row of its fraction in each split; with larger ones,
within the size of its largest unit, if the units can be spread at all.

Rows with several labels are stratified by each label separately (``assign_multilabel``); rows from
several sources by class and source (``strata_by_source``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import SplitError
from holdfast.core.records import Ints
from holdfast.duplicates.words import I64, U64

Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class _Board:
    """The state of one assignment. Entries (``entry_unit``, ``entry_label``, ``entry_count``) are
    the number of rows of a class in a unit, sorted by unit; ``placed`` and ``targets`` are
    [classes, splits]."""

    entry_unit: I64
    entry_label: I64
    entry_count: I64
    sizes: I64
    keys: U64
    targets: Floats
    placed: Floats
    assignment: npt.NDArray[np.int8]

    @property
    def starts(self) -> I64:
        return np.asarray(np.searchsorted(self.entry_unit, np.arange(len(self.sizes) + 1)))


def assign(
    unit_of_row: I64,
    labels: I64,
    unit_keys: U64,
    fractions: tuple[float, ...],
    class_names: tuple[str, ...],
) -> npt.NDArray[np.int8]:
    """The split of each unit [units], as an index into ``fractions``.

    Parameters
    ----------
    unit_of_row : [n] the unit of each row, 0 … units − 1, each present.
    labels : [n] the class of each row, 0 … classes − 1.
    unit_keys : [units] the order in which units are assigned; the order of equal keys is undefined.
    fractions : the share of each split, positive, summing to 1.
    class_names : the names of the classes, for messages.

    Raises ``SplitError`` if a class has fewer units than there are splits, or cannot be present in
    every split.
    """
    classes = int(labels.max(initial=-1)) + 1
    entries, count = np.unique(unit_of_row * max(classes, 1) + labels, return_counts=True)
    unit, label = np.divmod(entries, max(classes, 1))
    targets = class_targets(np.bincount(labels, minlength=classes), fractions).astype(np.float64)
    sizes = np.bincount(unit_of_row, minlength=len(unit_keys))
    assignment = np.full(len(unit_keys), -1, dtype=np.int8)
    board = _Board(
        unit, label, count, sizes, unit_keys, targets, np.zeros_like(targets), assignment
    )
    _check_classes(board, class_names, len(fractions))
    _place_large(board)
    _place_single(board)
    _fill_gaps(board, class_names)
    return board.assignment


def class_targets(totals: I64, fractions: tuple[float, ...]) -> I64:
    """The target rows of each class in each split, [classes, splits]: each within one of total ×
    fraction, and at least 1 if the class has a row for every split; they sum to ``totals``."""
    exact_targets = totals[:, None] * np.asarray(fractions)
    # 0.15 × 20 is 3.0000000000000004 in some orders: a whole number must not round up.
    targets = np.floor(exact_targets + 1e-9).astype(np.int64)
    deficit = np.zeros(len(fractions))
    for class_number, total in enumerate(totals.tolist()):
        deficit += exact_targets[class_number] - targets[class_number]
        remainder = exact_targets[class_number] - targets[class_number]
        # A share without a remainder is rounded up last. Before it comes the split with the largest
        # deficit from earlier classes, so that totals are correct over many small classes.
        order = sorted(
            range(len(fractions)), key=lambda s: (remainder[s] <= 1e-9, -deficit[s], -remainder[s])
        )
        for split in order[: total - int(targets[class_number].sum())]:
            targets[class_number, split] += 1
            deficit[split] -= 1
        # A split without a class cannot be scored on it.
        while total >= len(fractions) and targets[class_number].min() == 0:
            targets[class_number, targets[class_number].argmin()] += 1
            targets[class_number, targets[class_number].argmax()] -= 1
    return np.asarray(targets)


def _check_classes(board: _Board, class_names: tuple[str, ...], splits: int) -> None:
    if len(board.keys) < splits:
        # Dropping or merging classes would not help.
        raise SplitError(
            "the rows",
            f"have {len(board.keys)} independent unit{'s' if len(board.keys) > 1 else ''} "
            f"(duplicates and groups count once), but each of the {splits} splits needs one",
            None,
            "Add rows (blank lines separate sentences of tagged words). With --group, choose a "
            "finer group.",
        )
    units = np.bincount(board.entry_label, minlength=len(board.targets))
    for number in np.flatnonzero((units > 0) & (units < splits)):
        raise SplitError(
            f"the class {class_names[number]!r}",
            f"has {units[number]} independent unit{'s' if units[number] > 1 else ''} (duplicates "
            f"and groups count once), but each of the {splits} splits needs one",
            None,
            "Add rows of this class, drop small classes with --set data.rare_classes=drop, or "
            "merge them with --set data.rare_classes=merge. With --group, choose a finer group.",
        )


def _place_large(board: _Board) -> None:
    large = np.flatnonzero(board.sizes > 1)
    # Largest first, as in bin packing: small units can still balance what large ones left.
    order = large[np.lexsort((board.keys[large], -board.sizes[large]))]
    # Read once: the property searches all units each time.
    starts = board.starts
    labels, counts = board.entry_label.tolist(), board.entry_count.tolist()
    # Lists: the loop reads single numbers, where lists are several times faster than arrays. A
    # target of 0 would cause a division by 0.
    placed, targets = board.placed.tolist(), np.maximum(board.targets, 0.5).tolist()
    splits = range(board.targets.shape[1])
    for unit in order.tolist():
        entries = [(labels[e], counts[e]) for e in range(starts[unit], starts[unit + 1])]
        costs = [
            sum(m * (2 * (placed[c][s] - targets[c][s]) + m) / targets[c][s] for c, m in entries)
            for s in splits
        ]
        best = costs.index(min(costs))
        board.assignment[unit] = best
        for label, count in entries:
            placed[label][best] += count
    board.placed = np.array(placed, dtype=np.float64).reshape(board.targets.shape)


def _place_single(board: _Board) -> None:
    single = board.sizes[board.entry_unit] == 1
    units, labels = board.entry_unit[single], board.entry_label[single]
    order = np.lexsort((board.keys[units], labels))
    units, labels = units[order], labels[order]
    edges = np.searchsorted(labels, np.arange(len(board.targets) + 1))
    for label in range(len(board.targets)):
        units_here = units[edges[label] : edges[label + 1]]
        capacity = np.maximum(board.targets[label] - board.placed[label], 0)
        # Large units may have filled a split beyond its target; the rest is distributed by the
        # remaining capacity.
        quota = _apportion(len(units_here), capacity)
        board.assignment[units_here] = np.repeat(np.arange(len(quota)), quota)
        board.placed[label] += quota


def _apportion(total: int, weights: Floats) -> I64:
    """``total`` as integers in proportion to ``weights`` (largest remainders)."""
    if total == 0:
        return np.zeros(len(weights), dtype=np.int64)
    exact_parts = total * weights / weights.sum()
    # 0.29 · 100 comes out as 28.999999999999996.
    parts = np.floor(exact_parts + 1e-9).astype(np.int64)
    order = np.argsort(-(exact_parts - parts), kind="stable")
    parts[order[: total - int(parts.sum())]] += 1
    return np.asarray(parts)


def _fill_gaps(board: _Board, class_names: tuple[str, ...]) -> None:
    present = board.targets.sum(axis=1) > 0
    # A class with rows only in a given table is not missing here.
    for label, split in np.argwhere((board.placed == 0) & present[:, None]).tolist():
        # An earlier move may have brought the class along.
        if board.placed[label, split] > 0:
            continue
        unit = _movable_unit(board, label)
        if unit is None:
            raise SplitError(
                f"the class {class_names[label]!r}",
                "cannot be present in every split",
                None,
                "Its rows are in too few or too mixed groups: choose a finer --group, add rows, "
                "or use --set data.rare_classes=drop.",
            )
        entries = np.flatnonzero(board.entry_unit == unit)
        board.placed[board.entry_label[entries], board.assignment[unit]] -= board.entry_count[
            entries
        ]
        board.placed[board.entry_label[entries], split] += board.entry_count[entries]
        board.assignment[unit] = split


def _movable_unit(board: _Board, label: int) -> int | None:
    """The smallest unit of a class whose removal leaves every class in its split; ties by key."""
    units = board.entry_unit[board.entry_label == label]
    starts = board.starts
    for unit in units[np.lexsort((board.keys[units], board.sizes[units]))].tolist():
        entries = slice(int(starts[unit]), int(starts[unit + 1]))
        remaining = (
            board.placed[board.entry_label[entries], board.assignment[unit]]
            - board.entry_count[entries]
        )
        if (remaining > 0).all():
            return int(unit)
    return None


def assign_multilabel(
    unit_of_row: I64, label_matrix: npt.NDArray[np.bool_], keys: U64, fractions: Sequence[float]
) -> npt.NDArray[np.int8]:
    """The split of each unit [units], stratified by each label.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011): the label with the fewest
    unplaced rows comes first, because it is the hardest to place later. Each of its units goes to
    the split that still needs most rows of it; ties go to the split that needs most rows in total,
    then to the first in a seeded order. Rows without a label come last and fill up the splits. A
    unit counts with all its rows; the largest units of a label come first, as in bin packing.

    ``unit_of_row`` [n] the unit of each row, ``label_matrix`` [n, labels] which labels it has,
    ``keys`` [units] the order of ties, ``fractions`` of the splits, summing to 1.

    Raises ``SplitError`` if there are fewer units than splits.
    """
    units, splits = len(keys), len(fractions)
    if units < splits:
        rule = (
            f"have {units} independent units (duplicates and groups count once), but each of the "
            f"{splits} splits needs one"
        )
        raise SplitError("the rows", rule, None, "Add rows, or choose fewer folds.")
    counts = np.zeros((units, label_matrix.shape[1]), dtype=np.int64)
    np.add.at(counts, unit_of_row, label_matrix.astype(np.int64))
    sizes = np.bincount(unit_of_row, minlength=units)
    shares = np.asarray(fractions, dtype=np.float64)
    remaining_targets = counts.sum(axis=0)[:, None] * shares
    capacity = len(unit_of_row) * shares
    assignment = np.full(units, -1, dtype=np.int8)
    remaining_counts = counts.sum(axis=0)
    while remaining_counts.any():
        label = int(
            np.argmin(np.where(remaining_counts > 0, remaining_counts, np.iinfo(np.int64).max))
        )
        unassigned = np.flatnonzero((assignment < 0) & (counts[:, label] > 0))
        for unit in unassigned[np.lexsort((keys[unassigned], -counts[unassigned, label]))].tolist():
            # Each unit has its own order of tied splits; otherwise the first split would gain.
            tie_order = (np.arange(splits) - int(keys[unit] % np.uint64(splits))) % splits
            best = int(np.lexsort((tie_order, -capacity, -remaining_targets[label]))[0])
            assignment[unit] = best
            remaining_targets[:, best] -= counts[unit]
            capacity[best] -= sizes[unit]
            remaining_counts = remaining_counts - counts[unit]
    rest = np.flatnonzero(assignment < 0)
    for unit in rest[np.lexsort((keys[rest], -sizes[rest]))].tolist():
        assignment[unit] = int(np.argmax(capacity))
        capacity[assignment[unit]] -= sizes[unit]
    return assignment


def strata_by_source(
    labels: Ints,
    sources: npt.NDArray[np.generic],
    unit_of_row: Ints,
    splits: int,
    classes: Sequence[str],
) -> tuple[Ints, tuple[str, ...]]:
    """The stratum of each row [n] if each source is split separately (a class of a source), and the
    class name of each stratum.

    If a source has fewer units (``unit_of_row`` [n]) of a class than there are ``splits``, they are
    merged with the same class of the other sources that have too few. If these are still too few,
    they are merged with the source that has most of the class.
    """
    _, source = np.unique(sources, return_inverse=True)
    cells = labels * (int(source.max(initial=0)) + 1) + source
    for label in np.unique(labels):
        here = labels == label
        small_cells = [
            c for c in np.unique(cells[here]) if _count_units(unit_of_row, cells == c) < splits
        ]
        if not small_cells:
            continue
        in_small_cells = np.isin(cells, small_cells)
        large_cells = np.unique(cells[here & ~in_small_cells])
        if _count_units(unit_of_row, in_small_cells) < splits and len(large_cells):
            cells[in_small_cells] = max(large_cells, key=lambda c: int((cells == c).sum()))
        else:
            cells[in_small_cells] = small_cells[0]
    _, first, strata = np.unique(cells, return_index=True, return_inverse=True)
    return strata.astype(np.int64), tuple(classes[int(labels[row])] for row in first)


def _count_units(unit_of_row: Ints, rows: npt.NDArray[np.bool_]) -> int:
    return len(np.unique(unit_of_row[rows]))
