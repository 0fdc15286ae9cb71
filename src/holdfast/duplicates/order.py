"""Whether two bags that nearly agree also have their words in nearly the same order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from holdfast.duplicates.words import I64, Bags, take_rows


def reordered(
    bags: Bags, first: I64, second: I64, differing: I64, moves: int
) -> npt.NDArray[np.bool_]:
    """Which pairs [m] need more than ``moves`` words moved, beside their ``differing`` words.

    The longest common subsequence of words is then shorter than the larger bag's size less
    ``differing`` less ``moves``. Pairs that agree place by place but for ``differing`` words, by
    far the most, are not aligned at all.
    """
    larger = np.maximum(bags.counts[first], bags.counts[second])
    unclear = np.flatnonzero(_misplaced(bags, first, second) > differing)
    result = np.zeros(len(first), dtype=bool)
    for pair in unclear.tolist():
        common = _longest_common(bags, int(first[pair]), int(second[pair]))
        result[pair] = larger[pair] - common > differing[pair] + moves
    return result


def _misplaced(bags: Bags, first: I64, second: I64) -> I64:
    """Places at which two rows hold different words; all of them where lengths differ."""
    counts = bags.counts[first]
    same = np.flatnonzero(counts == bags.counts[second])
    one, starts = take_rows(bags.sequence, bags.starts, first[same])
    other, _ = take_rows(bags.sequence, bags.starts, second[same])
    pair = np.repeat(np.arange(len(same)), np.diff(starts))
    misplaced = counts.copy()
    misplaced[same] = np.bincount(pair[one != other], minlength=len(same))
    return misplaced


def _longest_common(bags: Bags, first: int, second: int) -> int:
    from rapidfuzz.distance import LCSseq

    one, other = (
        bags.sequence[bags.starts[row] : bags.starts[row + 1]].tolist() for row in (first, second)
    )
    return int(LCSseq.similarity(one, other))
