"""Refuse a division in which a text or a group stands on two sides.

An independent check after the division: normal forms are computed again from the rows that each
side really holds. Verified near-copies are those of the one search (``Copies``); a link across a
reported cut of chains is the only one that may cross.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import SplitError
from holdfast.data.table import Splits, Table
from holdfast.duplicates.duplicates import Copies
from holdfast.duplicates.normalise import content_keys, normal_forms, to_arrow
from holdfast.duplicates.texts import RowTexts
from holdfast.duplicates.words import BLOCK, U64

_REMEDY = "Divide again with holdfast's own division, or leave these rows out of one side."


def refuse_leaks(splits: Splits) -> None:
    """Raise ``SplitError`` where sides share a normal form or a group.

    Reads the test rows' texts and groups without opening them: nothing is chosen by it.
    """
    sides = {"train": splits.train.table, "valid": splits.valid.table, "test": splits.test._table}
    keys = {name: text_keys(table) for name, table in sides.items()}
    for one, other in combinations(sides, 2):
        shared = np.intersect1d(keys[one], keys[other])
        if len(shared):
            first = [
                int(sides[name].column("row")[keys[name] == shared[0]][0]) for name in (one, other)
            ]
            raise SplitError(
                f"{one} and {other}",
                f"share {len(shared)} texts (equal after normalising)",
                f"row {first[0]} of {one}, row {first[1]} of {other}",
                _REMEDY,
            )
    groups = {name: set(t.column("group")) for name, t in sides.items() if t.has_groups}
    for one, other in combinations(groups, 2):
        if both := groups[one] & groups[other]:
            raise SplitError(f"{one} and {other}", f"share {len(both)} groups", min(both), _REMEDY)


def refuse_shared_copies(copies: Copies, side: npt.NDArray[np.int8], names: list[str]) -> None:
    """Raise ``SplitError`` where a verified near-copy crosses sides without a reported cut.

    ``side`` [n] is the side of each text of ``copies``, an index into ``names``; -1 for dropped.
    """
    stands_on = np.zeros((int(copies.exact.max(initial=-1)) + 1, len(names)), dtype=bool)
    stands_on[copies.exact[side >= 0], side[side >= 0]] = True
    links = copies.links.where(~copies.permitted)
    for one, other in combinations(range(len(names)), 2):
        crossing = (stands_on[links.first, one] & stands_on[links.second, other]) | (
            stands_on[links.first, other] & stands_on[links.second, one]
        )
        if crossing.any():
            raise SplitError(
                f"{names[one]} and {names[other]}",
                f"share {int(crossing.sum())} pairs of near-copies",
                None,
                _REMEDY,
            )


def text_keys(table: Table) -> U64:
    """The hash of each row's normal form, [n]."""
    texts, keys = RowTexts(table), [np.empty(0, np.uint64)]
    for at in range(0, len(texts), BLOCK):
        keys.append(content_keys(normal_forms(to_arrow(texts[at : at + BLOCK]))))
    return np.concatenate(keys)
