"""Unlabelled texts without those that some row of the run has already, whatever its side."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from holdfast.copies.duplicates import Copies
from holdfast.core.records import Finding
from holdfast.core.seeds import generator
from holdfast.data.extra_texts import Unlabelled
from holdfast.data.table import Table

CHECK = "unlabelled_rows"
# Neighbours are looked for among all pairs of them.
MOST_ROWS = 10_000


def without_copies(
    lot: Table, copies: Copies, mine: npt.NDArray[np.bool_], seed: int
) -> Unlabelled:
    """One text of each group of copies among ``lot`` that no row of the source or of a given file
    is in, or linked to.

    ``copies`` are those among all rows and these texts, ``mine`` [all] says which are the texts.
    Above 10,000 a random sample of them is taken.
    """
    texts: list[str] = lot.column("text")
    links = copies.near_pairs()
    taken = np.isin(copies.groups, copies.groups[~mine])
    # A group that chains made too large is cut: its links still tell copies.
    crossing = mine[links.first] != mine[links.second]
    taken[links.first[crossing]] = taken[links.second[crossing]] = True
    taken = np.isin(copies.exact, copies.exact[taken])[mine]
    groups = copies.groups[mine]
    fresh = np.flatnonzero(~taken)
    kept = np.sort(fresh[np.unique(groups[fresh], return_index=True)[1]])
    found, copied = [], int(taken.sum())
    if copied:
        because = (
            f"{copied:,} of {len(texts):,} unlabelled texts are copies of rows of the source or of "
            "a test or validation file: they are left out, for what is held out must not be "
            "learned from"
        )
        found.append(Finding(CHECK, "info", copied / len(texts), copied, (), because, "", True))
    if len(kept) > MOST_ROWS:
        because = f"{MOST_ROWS:,} of {len(kept):,} unlabelled texts are used, drawn at random"
        found.append(Finding(CHECK, "info", 0.0, len(kept), (), because, "", True))
        kept = np.sort(generator(seed, "unlabelled").permutation(kept)[:MOST_ROWS])
    return Unlabelled(tuple(texts[i] for i in kept), tuple(found))
