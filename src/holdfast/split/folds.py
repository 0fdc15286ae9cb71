"""Cross-validation folds: each row is held out once.

Rows are positions 0 … n − 1 of the prepared data. Duplicates and groups (``units``) stay together
in every fold. A fold is a pair of position arrays, so no rows are copied.

Folds share training rows: ``stats/folds.py`` computes intervals over them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import Defect
from holdfast.core.records import Ints
from holdfast.core.seeds import derive_seed
from holdfast.duplicates.near_duplicates import mix_bits
from holdfast.duplicates.words import I64, U64
from holdfast.split.assign import assign, assign_multilabel
from holdfast.split.strategies import by_time


@dataclass(frozen=True, slots=True)
class Fold:
    """``train`` and ``held_out`` positions, ascending; ``number`` of the fold in its ``repeat``. In
    folds by time, later rows are in neither."""

    train: Ints
    held_out: Ints
    number: int
    repeat: int = 0


@dataclass(frozen=True, slots=True)
class Folds:
    """Folds of n rows; ``description`` states how they were made."""

    folds: tuple[Fold, ...]
    description: str

    def __iter__(self) -> Iterator[Fold]:
        return iter(self.folds)

    def __len__(self) -> int:
        return len(self.folds)


def make_folds(
    units: Ints,
    labels: Ints,
    folds: int,
    seed: int,
    *,
    repeats: int = 1,
    class_names: tuple[str, ...] = (),
    label_matrix: npt.NDArray[np.bool_] | None = None,
) -> Folds:
    """k folds, repeated: every row is held out once in each repeat.

    Parameters
    ----------
    units : [n] equal for rows that must stay together.
    labels : [n] numbers of classes, or of bins of numbers (``data/labels/bins.py``), by which the
        folds are stratified; each needs as many units as there are folds.
    folds, repeats : at least 2, at least 1; each repeat assigns the units again.
    class_names : the names of the classes, for messages.
    label_matrix : [n, labels] which labels each row has, to stratify by each label
        (``assign_multilabel``) instead of by ``labels``.

    Raises ``SplitError`` if a class has fewer units than there are folds.
    """
    if folds < 2 or repeats < 1:
        raise Defect("folds and repeats", "must be at least 2 and at least 1", (folds, repeats))
    unit_of_row = np.unique(units, return_inverse=True)[1].astype(np.int64)
    shares = (1 / folds,) * folds
    all_folds = []
    for repeat in range(repeats):
        keys = _unit_keys(unit_of_row, seed, repeat)
        if label_matrix is not None:
            assignment = assign_multilabel(unit_of_row, label_matrix, keys, shares)[unit_of_row]
        else:
            fold_class_names = _class_names(labels, class_names)
            assignment = assign(
                unit_of_row, labels.astype(np.int64), keys, shares, fold_class_names
            )[unit_of_row]
        all_folds += [
            Fold(
                np.flatnonzero(assignment != number),
                np.flatnonzero(assignment == number),
                number,
                repeat,
            )
            for number in range(folds)
        ]
    balance = "stratified by each label" if label_matrix is not None else "stratified by class"
    repeats_note = f", {repeats} times" if repeats > 1 else ""
    description = (
        f"{folds} folds{repeats_note}, {balance}, duplicates and groups kept together, seed {seed}"
    )
    return Folds(tuple(all_folds), description)


def holdout_split(
    units: Ints, labels: Ints, share: float, seed: int, *, class_names: tuple[str, ...] = ()
) -> tuple[Ints, Ints]:
    """Positions of the remaining rows, and of a held-out ``share`` of about this size, stratified
    by class, with units kept together. Raises ``SplitError`` if a class has only one unit."""
    unit_of_row = np.unique(units, return_inverse=True)[1].astype(np.int64)
    keys, called = _unit_keys(unit_of_row, seed, 0), _class_names(labels, class_names)
    assignment = assign(unit_of_row, labels.astype(np.int64), keys, (1 - share, share), called)[
        unit_of_row
    ]
    return np.flatnonzero(assignment == 0), np.flatnonzero(assignment == 1)


def time_folds(units: Ints, ages: npt.NDArray[np.float64], folds: int) -> Folds:
    """Folds by time: the rows in folds + 1 periods of about the same size. Each period except the
    first is held out once; the training rows are all earlier ones. A unit is as old as its newest
    row; rows of one age stay together.

    Raises ``SplitError`` if there are fewer different ages than periods.
    """
    unit_of_row = np.unique(units, return_inverse=True)[1].astype(np.int64)
    shares = (1 / (folds + 1),) * (folds + 1)
    assignment = by_time(unit_of_row, ages, _unit_keys(unit_of_row, 0, 0), shares)[unit_of_row]
    time_ordered = tuple(
        Fold(np.flatnonzero(assignment < at), np.flatnonzero(assignment == at), at - 1)
        for at in range(1, folds + 1)
    )
    return Folds(time_ordered, f"{folds} folds by time, each predicted from older rows")


def _unit_keys(unit_of_row: I64, seed: int, repeat: int) -> U64:
    units = np.arange(int(unit_of_row.max(initial=-1)) + 1, dtype=np.uint64)
    salt = np.full(1, derive_seed(seed, f"folds {repeat}"), dtype=np.uint64)
    return mix_bits(units ^ mix_bits(salt))


def _class_names(labels: Ints, class_names: tuple[str, ...]) -> tuple[str, ...]:
    return class_names or tuple(str(number) for number in range(int(labels.max(initial=-1)) + 1))
