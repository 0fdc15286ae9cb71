"""Folds: divisions of the same rows into so many parts that each row is held out once.

For scores by cross-validation (``Prepared`` rows, positions 0 … n − 1). What copies or a group hold
together (``units``) is never parted, in no fold. A fold is a pair of positions, so that nothing is
copied.

Folds share training rows: intervals over them are those of ``stats/folds.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import Defect
from holdfast.core.records import Ints
from holdfast.core.seeds import derive_seed
from holdfast.duplicates.near_copies import mix
from holdfast.duplicates.words import I64, U64
from holdfast.split.assign import assign, assign_several
from holdfast.split.ways import by_time


@dataclass(frozen=True, slots=True)
class Fold:
    """``train`` and ``held`` positions, ascending; ``number`` of the fold in its ``repeat``. Not
    every row is in one of the two: by time, later rows are in neither."""

    train: Ints
    held: Ints
    number: int
    repeat: int = 0


@dataclass(frozen=True, slots=True)
class Folds:
    """Folds of n rows; ``how`` says in words how they came about."""

    folds: tuple[Fold, ...]
    how: str

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
    names: tuple[str, ...] = (),
    several: npt.NDArray[np.bool_] | None = None,
) -> Folds:
    """k folds, repeated: every row is held out once in each repeat.

    Parameters
    ----------
    units : [n] equal for rows that must not be parted.
    labels : [n] numbers of classes, or of ranges of numbers (``data/labels/bins.py``), which every
        fold holds in proportion; each needs as many units as there are folds.
    folds, repeats : at least 2, at least 1; each repeat deals the units anew.
    names : of the classes, for messages.
    several : [n, labels] which labels each row has, to be held in proportion each by itself
        (``assign_several``), in place of ``labels``.

    Raises ``SplitError`` where a class has fewer units than there are folds.
    """
    if folds < 2 or repeats < 1:
        raise Defect("folds and repeats", "must be at least 2 and at least 1", (folds, repeats))
    of_row = np.unique(units, return_inverse=True)[1].astype(np.int64)
    shares = (1 / folds,) * folds
    found = []
    for repeat in range(repeats):
        keys = _keys(of_row, seed, repeat)
        if several is not None:
            side = assign_several(of_row, several, keys, shares)[of_row]
        else:
            called = _named(labels, names)
            side = assign(of_row, labels.astype(np.int64), keys, shares, called)[of_row]
        found += [
            Fold(np.flatnonzero(side != number), np.flatnonzero(side == number), number, repeat)
            for number in range(folds)
        ]
    kind = "each label in proportion" if several is not None else "stratified by class"
    times = f", {repeats} times" if repeats > 1 else ""
    how = f"{folds} folds{times}, {kind}, copies and groups together, seed {seed}"
    return Folds(tuple(found), how)


def set_aside(
    units: Ints, labels: Ints, share: float, seed: int, *, names: tuple[str, ...] = ()
) -> tuple[Ints, Ints]:
    """Positions of the rows that stay, and of about this ``share`` of them that are set aside, each
    class in proportion and units whole. Raises ``SplitError`` where a class has one unit."""
    of_row = np.unique(units, return_inverse=True)[1].astype(np.int64)
    keys, called = _keys(of_row, seed, 0), _named(labels, names)
    side = assign(of_row, labels.astype(np.int64), keys, (1 - share, share), called)[of_row]
    return np.flatnonzero(side == 0), np.flatnonzero(side == 1)


def forward(units: Ints, ages: npt.NDArray[np.float64], folds: int) -> Folds:
    """By time: the rows in folds + 1 stretches of about the same size, each but the first held out
    once by what lies before it. A unit is as old as its newest row; rows of one age stay together.

    Raises ``SplitError`` where there are fewer different ages than stretches.
    """
    of_row = np.unique(units, return_inverse=True)[1].astype(np.int64)
    shares = (1 / (folds + 1),) * (folds + 1)
    side = by_time(of_row, ages, _keys(of_row, 0, 0), shares)[of_row]
    found = tuple(
        Fold(np.flatnonzero(side < at), np.flatnonzero(side == at), at - 1)
        for at in range(1, folds + 1)
    )
    return Folds(found, f"{folds} folds by time, each held out by what is older")


def _keys(of_row: I64, seed: int, repeat: int) -> U64:
    units = np.arange(int(of_row.max(initial=-1)) + 1, dtype=np.uint64)
    salt = np.full(1, derive_seed(seed, f"folds {repeat}"), dtype=np.uint64)
    return mix(units ^ mix(salt))


def _named(labels: Ints, names: tuple[str, ...]) -> tuple[str, ...]:
    return names or tuple(str(number) for number in range(int(labels.max(initial=-1)) + 1))
