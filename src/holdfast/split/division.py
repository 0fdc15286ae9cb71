"""What one division knows, from the copies to the sides: the record that findings are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.duplicates.gather import AllRows, Protected, nearest_protected
from holdfast.duplicates.words import I64
from holdfast.split.cross_group_copies import Crossing

SIDES = ("train", "valid", "test")


@dataclass(frozen=True, slots=True)
class Drops:
    """Rows of one table that another, protected one holds too: ``of`` [rows] the position of the
    protected row they copy (-1: none), ``similarity`` [rows], ``group`` [rows] shares a group."""

    name: str
    protected: str
    of: I64
    similarity: npt.NDArray[np.float32]
    group: npt.NDArray[np.bool_]

    @property
    def rows(self) -> npt.NDArray[np.bool_]:
        """Whether each row is dropped."""
        return np.asarray((self.of >= 0) | self.group)


def find_drops(gathered: AllRows) -> tuple[Drops, ...]:
    """Source rows that copy a given table's, and rows of a given validation table that copy the
    test table's. The test table is never touched."""
    pairs = [
        (name, protected)
        # The test rows first: a row that copies both is noted as a copy of a test row.
        for protected in ("test", "valid")
        for name in ("source", "valid")
        if protected in gathered.tables and name in gathered.tables and name != protected
    ]
    nearest = {
        protected: nearest_protected(gathered.copies, gathered.mask(protected))
        for protected in {protected for _, protected in pairs}
    }
    return tuple(_drops(gathered, name, protected, nearest[protected]) for name, protected in pairs)


def _drops(gathered: AllRows, name: str, protected: str, nearest: Protected) -> Drops:
    span = gathered.span(name)
    table, theirs = gathered.tables[name], gathered.tables[protected]
    group = np.zeros(len(table), dtype=bool)
    if table.has_groups and theirs.has_groups:
        taken = set(theirs.column("group"))
        group = np.array([value in taken for value in table.column("group")], dtype=bool)
    return Drops(name, protected, nearest.of[span], nearest.similarity[span], group)


def dropped(drops: tuple[Drops, ...], name: str, rows: int) -> npt.NDArray[np.bool_]:
    """Whether each row of a table is dropped for any reason."""
    masks: list[Any] = [drop.rows for drop in drops if drop.name == name]
    return np.asarray(np.logical_or.reduce([np.zeros(rows, dtype=bool), *masks]))


def drop_notes(gathered: AllRows, drops: tuple[Drops, ...], name: str) -> list[str | None]:
    """Why each row of a table was dropped; ``None`` where it was not."""
    notes: list[str | None] = [None] * len(gathered.tables[name])
    for drop in drops:
        if drop.name != name:
            continue
        for at in np.flatnonzero(drop.rows).tolist():
            notes[at] = notes[at] or _drop_note(gathered, drop, at)
    return notes


def crossing_notes(gathered: AllRows, crossing: Crossing, names: tuple[str, ...]) -> list[str]:
    """Why each row was dropped that copies a row of another group."""
    return [
        f"copies or nearly copies {gathered.place(of)} ({names[side]}), which is of another group"
        for of, side in zip(crossing.of.tolist(), crossing.side.tolist(), strict=True)
    ]


def _drop_note(gathered: AllRows, drop: Drops, at: int) -> str:
    if drop.of[at] < 0:
        return f"shares its group with the {drop.protected} rows"
    place = gathered.place(int(drop.of[at]))
    # A near-copy may have a similarity of 1 too: the same words in another order.
    if drop.similarity[at] >= 1 and _same_form(gathered, drop, at):
        return f"copies {place} ({drop.protected})"
    return f"nearly copies {place} ({drop.protected}, similarity {drop.similarity[at]:.2f})"


def _same_form(gathered: AllRows, drop: Drops, at: int) -> bool:
    exact = gathered.copies.exact
    return bool(exact[gathered.starts[drop.name] + at] == exact[drop.of[at]])
