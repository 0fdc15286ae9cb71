"""Rows of several labels → sides that hold each label in proportion.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011): the label with the fewest rows
that are not yet placed comes first, since it is the hardest to place later; each of its units goes
to the side that still wants most rows of it, of equals to the one that wants most rows at all, of
equals to the first in a seeded order. Rows without a label come last and fill up the sides. Here
the things placed are units (copies and groups), and a unit counts with its rows; the largest of a
label come first, as in packing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import SplitError
from holdfast.duplicates.words import I64, U64


def assign_several(
    of_row: I64, labels: npt.NDArray[np.bool_], keys: U64, fractions: Sequence[float]
) -> npt.NDArray[np.int8]:
    """The side of each unit [units].

    ``of_row`` [n] the unit of each row, ``labels`` [n, labels] which labels it has, ``keys``
    [units] the order of equals, ``fractions`` of the sides, summing to 1.

    Raises ``SplitError`` where there are fewer units than sides.
    """
    units, sides = len(keys), len(fractions)
    if units < sides:
        raise SplitError(
            "the rows",
            f"are {units} independent units (copies and groups count once) where each of {sides} "
            "sides needs one",
            None,
            "Add rows, or choose fewer folds.",
        )
    counts = np.zeros((units, labels.shape[1]), dtype=np.int64)
    np.add.at(counts, of_row, labels.astype(np.int64))
    sizes = np.bincount(of_row, minlength=units)
    share = np.asarray(fractions, dtype=np.float64)
    wanted = counts.sum(axis=0)[:, None] * share
    room = len(of_row) * share
    side = np.full(units, -1, dtype=np.int8)
    left = counts.sum(axis=0)
    while left.any():
        label = int(np.argmin(np.where(left > 0, left, np.iinfo(np.int64).max)))
        here = np.flatnonzero((side < 0) & (counts[:, label] > 0))
        for unit in here[np.lexsort((keys[here], -counts[here, label]))].tolist():
            # The order of sides that want alike is of the unit's own, or the first would gain.
            turn = (np.arange(sides) - int(keys[unit] % np.uint64(sides))) % sides
            best = int(np.lexsort((turn, -room, -wanted[label]))[0])
            side[unit] = best
            wanted[:, best] -= counts[unit]
            room[best] -= sizes[unit]
            left = left - counts[unit]
    rest = np.flatnonzero(side < 0)
    for unit in rest[np.lexsort((keys[rest], -sizes[rest]))].tolist():
        side[unit] = int(np.argmax(room))
        room[side[unit]] -= sizes[unit]
    return side
