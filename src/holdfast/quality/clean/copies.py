"""Copies of a row with the same label: the first stays.

Copies whose labels differ stay all: which of them is right cannot be told here.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from holdfast.core.wording import counted
from holdfast.data.labels.spelling import label_key
from holdfast.data.texts.normal import normal_text
from holdfast.duplicates.duplicates import find_copies
from holdfast.duplicates.normalise import PAIR_MARK
from holdfast.quality.clean.treatment import Edit, RowSet, TableTreatment, add


@dataclass(frozen=True, slots=True)
class DropCopies:
    """``same``: ``written`` counts texts that are equal to the letter, ``normal`` also those that
    differ in case, space and punctuation alone, ``near`` also verified near-copies. ``count`` names
    a column to be added that says for how many rows one stands, so that its weight is not lost."""

    same: str = "written"
    count: str = ""

    def __post_init__(self) -> None:
        from holdfast.core.errors import RecipeError

        if self.same not in ("written", "normal", "near"):
            rule = "is not one of the known values"
            raise RecipeError("treat.copies.same", rule, self.same, "written, normal or near.")


def without_copies(side: RowSet, settings: DropCopies) -> Sequence[Edit]:
    """An edit for each row that copies an earlier one of the same label."""
    first: dict[Hashable, int] = {}
    stands_for: dict[int, int] = {}
    before = _weights(side, settings.count)
    edits = []
    for n, key in enumerate(_keys(side, settings.same)):
        kept = first.setdefault(key, n)
        stands_for[kept] = stands_for.get(kept, 0) + before[n]
        if kept != n:
            edits.append(Edit(n, None, None, f"copies row {side.rows[kept]}"))
    if settings.count:
        edits += [
            Edit(n, settings.count, str(count), f"stands for {counted(count, 'row')}")
            for n, count in stands_for.items()
            if settings.count not in side.columns or count != before[n]
        ]
    return edits


def _weights(side: RowSet, column: str) -> list[int]:
    """For how many rows each stands already, where copies of it were left out before."""
    cells = side.columns.get(column) or [None] * len(side)
    return [int(cell) if cell and cell.isdecimal() else 1 for cell in cells]


def _keys(side: RowSet, same: str) -> Sequence[Hashable]:
    labels = side.columns[side.label] if side.label is not None else [None] * len(side)
    known = [None if one is None else label_key(one) for one in labels]
    texts = side.texts()
    if same == "written":
        return list(zip(texts, known, strict=True))
    if same == "normal":
        return [(*map(normal_text, text), key) for text, key in zip(texts, known, strict=True)]
    groups = find_copies([f" {PAIR_MARK} ".join(text) for text in texts], seed=0).groups
    return list(zip(groups.tolist(), known, strict=True))


add(
    TableTreatment(
        "copies", DropCopies, without_copies, order=90, fixes=("exact_duplicates",), trains=True
    )
)
