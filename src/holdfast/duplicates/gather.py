"""Several tables as one row of positions, and the copies among all their texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.data.table import Table
from holdfast.duplicates.duplicates import Copies, find_copies
from holdfast.duplicates.engines import MapEngine
from holdfast.duplicates.texts import RowTexts


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
