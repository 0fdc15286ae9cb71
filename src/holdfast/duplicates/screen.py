"""Which of millions of texts can have a near-copy at all: a first search in bounded memory.

1. Every text is read once, its words as hashes (``hashed_bags.py``): some 30 bytes a text and 4 a
   word, no vocabulary and no Python string.
2. ``passes.py`` finds each text that has another within the *number* of words in which the rule of
   ``criterion.py`` lets two differ. Texts of ``LONG`` words less the overlap or more, of which
   buckets of rare words could miss some, are all suspects.

The suspects, a few in a hundred of ordinary data, hold every near-copy there is, and among them
alone ``duplicates.py`` asks the exact rule: typing errors, digits, forms with a slot, order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from holdfast.duplicates.candidates import LONG, OVERLAP, can_be_near
from holdfast.duplicates.criterion import allowed
from holdfast.duplicates.engines import MapEngine
from holdfast.duplicates.hashed_bags import hashed_bags, read_hashed
from holdfast.duplicates.passes import depths_of, near_pairs
from holdfast.duplicates.texts import ArrowTexts, arrow_slice
from holdfast.duplicates.words import BLOCK, I64, U64, exact_forms


@dataclass(frozen=True, slots=True)
class Screened:
    """``exact`` [n] the number of each text's normal form; ``contents`` [n]; ``suspects`` [k] the
    forms that may have near-copies, ascending, and ``positions`` [k] a text of each."""

    exact: I64
    contents: U64
    suspects: I64
    positions: I64

    def texts(self, texts: Sequence[str]) -> Sequence[str]:
        """The texts of the suspects, in the order of the file."""
        return taken(texts, np.sort(self.positions))


def screen(texts: Sequence[str], engine: MapEngine) -> Screened:
    """The texts that may have near-copies."""
    read = read_hashed(texts, engine)
    exact, chosen = exact_forms(read)
    contents = read.contents
    bags = hashed_bags(read, chosen)
    # Words of all texts: of them only the bags are needed now.
    del read
    able = can_be_near(bags)
    most = np.minimum(allowed(bags.lengths), np.iinfo(np.int16).max)
    limits = np.where(able, most, -1).astype(np.int16)
    # The two searches of ``candidates.py`` overlap, so that copies may stand on either side of
    # ``LONG``; so do these.
    depths = depths_of(bags, np.where(bags.lengths < LONG, allowed(bags.lengths) + 2, 0))
    links, _ = near_pairs(bags, limits, depths, engine)
    suspect = (bags.lengths >= LONG - OVERLAP) & able
    suspect[links.first] = suspect[links.second] = True
    suspects = np.flatnonzero(suspect)
    return Screened(exact, contents, suspects, chosen[suspects])


def taken(texts: Sequence[str], positions: I64) -> ArrowTexts:
    """The texts at ascending ``positions``, read a block at a time."""
    parts: list[Any] = []
    for begin in range(0, len(texts), BLOCK):
        low, high = np.searchsorted(positions, [begin, begin + BLOCK])
        if low < high:
            block = arrow_slice(texts, begin, min(begin + BLOCK, len(texts)))
            parts.append(block.take(pa.array(positions[low:high] - begin)))
    return ArrowTexts(pa.chunked_array(parts, pa.large_string()))
