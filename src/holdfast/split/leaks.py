"""Refuse a division in which a text or a group stands on two sides.

An independent check after the division: normal forms are computed again from the rows that each
side really holds. Verified near-copies are those of the one search (``Copies``); a link across a
reported cut of chains is the only one that may cross.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    refuse_shared_texts(sides)
    refuse_shared_groups(sides)


def refuse_shared_texts(sides: Mapping[str, Table]) -> None:
    """Raise ``SplitError`` where two sides hold exact copies of one text."""
    keys = {name: text_keys(table) for name, table in sides.items()}
    for one, other in combinations(sides, 2):
        shared = np.intersect1d(keys[one], keys[other])
        if len(shared):
            rows = [_rows_of(sides[name], keys[name], shared[0]) for name in (one, other)]
            raise SplitError(
                f"{one} and {other}",
                f"share {len(shared)} texts (equal after normalising)",
                f"row {rows[0]} of {one}, row {rows[1]} of {other}",
                _REMEDY,
            )


def refuse_shared_groups(sides: Mapping[str, Table]) -> None:
    """Raise ``SplitError`` where two sides hold rows of one group."""
    groups = {name: set(t.column("group")) for name, t in sides.items() if t.has_groups}
    for one, other in combinations(groups, 2):
        shared = groups[one] & groups[other]
        if shared:
            raise SplitError(
                f"{one} and {other}", f"share {len(shared)} groups", min(shared), _REMEDY
            )


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
    texts = RowTexts(table)
    keys = [
        content_keys(normal_forms(to_arrow(texts[at : at + BLOCK])))
        for at in range(0, len(texts), BLOCK)
    ]
    return np.concatenate(keys) if keys else np.empty(0, np.uint64)


def _rows_of(table: Table, keys: U64, key: np.uint64) -> int:
    return int(table.column("row")[keys == key][0])
