"""Candidates of millions of bags → the pairs that a number of differing words allows, exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from holdfast.duplicates.engines import Engine
from holdfast.duplicates.passes import Passes
from holdfast.duplicates.verify import Links, differing_words
from holdfast.duplicates.words import Bags


def near_pairs(
    bags: Bags, limits: npt.NDArray[np.int16], depths: npt.NDArray[np.int8], engine: Engine
) -> tuple[Links, int]:
    """The candidates of ``passes.py`` whose bags differ in no more words than the smaller of their
    limits, in order; and how many rows met only some of a bucket."""
    packed, windowed = Passes(bags, limits, depths).pairs(engine)
    first = (packed >> np.uint64(32)).astype(np.int64)
    second = (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)
    differing = differing_words(bags, first, second)
    kept = differing <= np.minimum(limits[first], limits[second])
    first, second, differing = first[kept], second[kept], differing[kept]
    sizes = np.maximum(bags.counts_of(first), bags.counts_of(second))
    similarity = (1 - differing / np.maximum(sizes, 1)).astype(np.float32)
    return Links(first, second, similarity), windowed
