"""Rows that copy a table which is used as it is: a given test or validation file.

Such a row is left out of what is divided. Only direct copies are: a copy of a copy that is no
copy of a protected row itself may stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.duplicates.duplicates import Copies
from holdfast.duplicates.words import I64


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
