"""Several tables as one row of positions, the copies among all their texts, and which rows copy a
table that is used as it is: a given test or validation file.

Such a row is left out of what is divided. Only direct copies are: a copy of a copy that is no
copy of a protected row itself may stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.data.table import Table
from holdfast.duplicates.duplicates import Copies, find_copies
from holdfast.duplicates.engines import MapEngine
from holdfast.duplicates.words import I64, RowTexts


@dataclass(frozen=True, slots=True)
class AllRows:
    """The source and the given tables, in one row of positions: ``tables`` by name, the source
    first, ``starts`` where each begins, ``copies`` among all their texts."""

    tables: dict[str, Table]
    starts: dict[str, int]
    copies: Copies

    def span(self, name: str) -> slice:
        """The positions of one table."""
        return slice(self.starts[name], self.starts[name] + len(self.tables[name]))

    def mask(self, name: str) -> npt.NDArray[np.bool_]:
        """Which positions belong to one table, [all]."""
        mask = np.zeros(len(self.copies), dtype=bool)
        mask[self.span(name)] = True
        return mask

    def owner(self, position: int) -> str:
        """The table of a position."""
        # The last table that begins at the position or before it.
        return next(n for n in reversed(self.tables) if position >= self.starts[n])

    def place(self, position: int) -> str:
        """A position in words, e.g. ``row 12 of test.csv``."""
        name = self.owner(position)
        row = int(self.tables[name].column("row")[position - self.starts[name]])
        return f"row {row} of {self.tables[name].source}"


def gather(
    table: Table, given: Mapping[str, Table], seed: int, engine: MapEngine | None = None
) -> AllRows:
    """Find the copies among the source and the given tables together; ``engine`` as for
    ``find_copies``."""
    tables = {"source": table, **given}
    lengths = [len(each) for each in tables.values()]
    starts = dict(zip(tables, np.cumsum([0, *lengths[:-1]]).tolist(), strict=True))
    return AllRows(
        tables, starts, find_copies(RowTexts(*tables.values()), seed=seed, engine=engine)
    )


def copies_of(
    copies: Copies, known: npt.NDArray[np.bool_], asked: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Which of the texts that are ``asked`` about [n] copy a ``known`` one [n], [asked]: they are
    in its group, or linked to it: a group that chains made too large is cut, and its links still
    tell copies."""
    links, found = copies.near_pairs(), np.isin(copies.groups, copies.groups[known])
    for here, there in ((links.first, links.second), (links.second, links.first)):
        found[here[known[there]]] = True
    return np.asarray(np.isin(copies.exact, copies.exact[found | known])[asked])


@dataclass(frozen=True, slots=True)
class Protected:
    """For each text: ``similarity`` [n] to the nearest protected text (0: none, 1: exact copy),
    and ``of`` [n] the position of that text (-1: none)."""

    similarity: npt.NDArray[np.float32]
    of: I64

    @property
    def copies(self) -> npt.NDArray[np.bool_]:
        """Whether each text copies a protected one, [n]."""
        return np.asarray(self.of >= 0)


def nearest_protected(copies: Copies, protected: npt.NDArray[np.bool_]) -> Protected:
    """The nearest protected text that each text copies. ``protected`` [n] says which are."""
    forms = int(copies.exact.max(initial=-1)) + 1
    holder = np.full(forms, -1, dtype=np.int64)
    # Backwards, so that of several protected copies the first is named.
    positions = np.flatnonzero(protected)[::-1]
    holder[copies.exact[positions]] = positions
    similarity = np.where(holder >= 0, 1.0, 0.0).astype(np.float32)
    of = holder.copy()
    links = copies.links
    # The most similar first: what is set once is the nearest.
    for index in np.argsort(-links.similarity, kind="stable").tolist():
        a, b = int(links.first[index]), int(links.second[index])
        for one, other in ((a, b), (b, a)):
            # ``holder`` knows protected texts alone: a copy of a copy is not followed.
            if holder[other] >= 0 and of[one] < 0:
                of[one], similarity[one] = holder[other], links.similarity[index]
    return Protected(similarity[copies.exact], of[copies.exact])
