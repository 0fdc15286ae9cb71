"""Rows of several sources: each source is divided by itself, and copies between them are found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Finding, Ints
from holdfast.duplicates.gather import AllRows

LISTED = 100


def by_source(
    labels: Ints, sources: npt.NDArray[np.generic], of_row: Ints, sides: int, classes: Sequence[str]
) -> tuple[Ints, tuple[str, ...]]:
    """What is kept in proportion [n] where each source is divided by itself: a class of a source,
    and what each is called.

    A class of which a source has fewer units (``of_row`` [n]) than there are ``sides`` is divided
    together with the same class of the other sources that have too few, and where these are too
    few together, with the source that has most of it.
    """
    _, source = np.unique(sources, return_inverse=True)
    cells = labels * (int(source.max(initial=0)) + 1) + source
    for label in np.unique(labels):
        here = labels == label
        few = [c for c in np.unique(cells[here]) if _units(of_row, cells == c) < sides]
        if not few:
            continue
        small = np.isin(cells, few)
        rest = np.unique(cells[here & ~small])
        if _units(of_row, small) < sides and len(rest):
            cells[small] = max(rest, key=lambda c: int((cells == c).sum()))
        else:
            cells[small] = few[0]
    _, first, strata = np.unique(cells, return_index=True, return_inverse=True)
    return strata.astype(np.int64), tuple(classes[int(labels[row])] for row in first)


def _units(of_row: Ints, rows: npt.NDArray[np.bool_]) -> int:
    return len(np.unique(of_row[rows]))


def source_findings(gathered: AllRows) -> tuple[Finding, ...]:
    """Copies of a row of one source in another."""
    table = gathered.tables["source"]
    if "source" not in table.rows.column_names:
        return ()
    sources = np.asarray(table.column("source"), dtype=object)
    _, place = np.unique(gathered.copies.groups[gathered.span("source")], return_inverse=True)
    _, number = np.unique(sources, return_inverse=True)
    pairs = np.unique(np.column_stack([place, number]), axis=0)
    several = np.flatnonzero(np.bincount(pairs[:, 0]) > 1)
    rows = np.flatnonzero(np.isin(place, several))
    if not len(rows):
        return ()
    names = ", ".join(sorted(set(sources[rows].tolist())))
    return (
        Finding(
            "copies_across_sources",
            "info",
            len(rows) / len(table),
            len(rows),
            tuple(table.column("row")[rows][:LISTED].tolist()),
            f"{len(rows)} rows in {len(several)} groups of copies stand in several sources "
            f"({names}): each group stays on one side",
            "Drop them from one of the sources if they should count once.",
            fixed=True,
        ),
    )
