"""Candidate pairs → the pairs that the rule of ``criterion.py`` holds for, exactly.

Two cheap tests come first and never refuse a true pair: the bags' sizes may differ by at most d,
and so may the words that only one side has, of which each can flip one bit of a 64-bit signature.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from holdfast.duplicates.candidates import ENOUGH, Candidates, mix
from holdfast.duplicates.criterion import (
    LONG_ENOUGH,
    MOVES,
    ONE_WORD_IN,
    TEMPLATE,
    allowed,
    one_typing_error,
)
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.duplicates.words import (
    I32,
    I64,
    U64,
    Bags,
    row_blocks,
    run_lengths,
    run_starts,
    spans,
    take_rows,
)

WORDS_AT_ONCE = 1 << 22
# Twelve bits number the pair within one sort (``_codes``).
PAIRS_AT_ONCE = 1 << 12


def verify(bags: Bags, candidates: Iterable[Candidates]) -> SimilarPairs:
    """The near-copies among the candidates, each once, in order."""
    marks, counts = signatures(bags), bags.counts
    found = [np.empty(0, np.int64)]
    # How many likely copies each row has met: in a bucket of thousands of near-equal texts a row
    # that knows some is reached by links, without being compared with the rest.
    met = np.zeros(len(bags), dtype=np.int64)
    for chunk in candidates:
        first, second = chunk.first, chunk.second
        limit = allowed(np.minimum(bags.lengths[first], bags.lengths[second]))
        # Twice: up to d words on either side.
        likely = np.bitwise_count(marks[first] ^ marks[second]) <= 2 * limit
        likely &= np.abs(counts[first] - counts[second]) <= limit
        if chunk.windowed:
            likely &= (met[first] < ENOUGH) | (met[second] < ENOUGH)
            met += np.bincount(first[likely], minlength=len(met))
            met += np.bincount(second[likely], minlength=len(met))
        if likely.any():
            # Unique at once: one pair comes from many buckets, and chunks would pile them up.
            found.append(np.unique((first[likely] << 32) | second[likely]))
    pairs = np.unique(np.concatenate(found))
    first, second = pairs >> 32, pairs & 0xFFFFFFFF
    differing = differing_words(bags, first, second)
    lengths = np.minimum(bags.lengths[first], bags.lengths[second])
    kept = differing <= allowed(lengths)
    near = np.flatnonzero(kept)
    kept[near] = ~refused(bags, first[near], second[near], lengths[near], differing[near])
    short = np.flatnonzero(kept & (lengths < 2 * ONE_WORD_IN))
    kept[short] = ~reordered(bags, first[short], second[short], differing[short])
    return links_of(bags, first, second, differing).where(kept)


def links_of(bags: Bags, first: I64, second: I64, differing: I64) -> SimilarPairs:
    """Pairs of rows with their similarities in (0, 1], by the words in which they differ."""
    sizes = np.maximum(bags.counts_of(first), bags.counts_of(second))
    similarity = 1 - differing / np.maximum(sizes, 1)
    return SimilarPairs(first, second, similarity.astype(np.float32))


def differing_words(bags: Bags, first: I64, second: I64) -> I64:
    """d of each pair [m]: the larger bag's size less the words in common, counted with repeats."""
    shared = np.empty(len(first), dtype=np.int64)
    words = np.cumsum(bags.counts_of(first) + bags.counts_of(second))
    at = 0
    while at < len(first):
        before = words[at - 1] if at else 0
        end = int(np.searchsorted(words, before + WORDS_AT_ONCE, "right"))
        part = slice(at, min(max(end, at + 1), at + PAIRS_AT_ONCE))
        # Each word is numbered within its bag (the first "the", the second "the"), so that bags
        # become sets; then a word is shared where it stands twice in the sorted union.
        codes = np.concatenate([_codes(bags, first[part]), _codes(bags, second[part])])
        codes.sort()
        twice = codes[1:][codes[1:] == codes[:-1]] >> np.uint64(52)
        shared[part] = np.bincount(twice.astype(np.int64), minlength=part.stop - at)
        at = part.stop
    return np.maximum(bags.counts_of(first), bags.counts_of(second)) - shared


def signatures(bags: Bags) -> U64:
    """64 bits a row: one bit for each of its words, by hash. 0 for a row without words."""
    marks = np.zeros(len(bags), dtype=np.uint64)
    for block in row_blocks(bags.starts):
        starts = bags.starts[block.start : block.stop + 1]
        words = bags.bag[starts[0] : starts[-1]].astype(np.uint64)
        bits = np.uint64(1) << (mix(words + np.uint64(1)) & np.uint64(63))
        filled = np.flatnonzero(starts[1:] > starts[:-1])
        if len(filled):
            marks[block.start + filled] = np.bitwise_or.reduceat(bits, starts[filled] - starts[0])
    return marks


def _codes(bags: Bags, rows: I64) -> U64:
    """Pair, word and number of each word of some rows: 12 bits for the pair, 32 for the word, 20
    for the number."""
    words, starts = take_rows(bags.bag, bags.starts, rows)
    pair = np.repeat(np.arange(len(rows), dtype=np.uint64), np.diff(starts))
    # 0 for the first of equal words of a row, then 1, 2, …
    counts = run_lengths(run_starts(words, pair))
    number = spans(np.zeros(len(counts), np.int64), counts)
    # Twenty bits are left for it, a million repeats of one word in one text.
    number = np.minimum(number, (1 << 20) - 1).astype(np.uint64)
    return np.asarray((pair << np.uint64(52)) | (words.astype(np.uint64) << np.uint64(20)) | number)


NONE = -1


def odd_words(bags: Bags, first: I64, second: I64) -> tuple[I64, I64, U64]:
    """The odd words of pairs of bags that differ in one word: of the first and of the second [m],
    ``NONE`` where that side has none; and a hash [m] of the words in common.

    With x in the first bag alone and y in the second alone, the sums of the word numbers differ by
    x − y and the sums of their squares by x² − y²; the quotient is x + y. Sums may wrap at 64 bits:
    their differences are exact.
    """
    rows, at = np.unique(np.concatenate([first, second]), return_inverse=True)
    a, b = at[: len(first)], at[len(first) :]
    bag, starts = take_rows(bags.bag, bags.starts, rows)
    words = bag.astype(np.int64)
    plain = _sums(words, starts)
    squares = _sums(words * words, starts)
    hashes = _sums(_hash(words).astype(np.int64), starts)
    counts = np.diff(starts)
    gap = plain[a] - plain[b]
    longer = counts[a] - counts[b]
    swapped = longer == 0
    # Where one word stands for another the gap is never 0.
    both = (squares[a] - squares[b]) // np.where(swapped & (gap != 0), gap, 1)
    left = np.where(swapped, (both + gap) // 2, np.where(longer > 0, gap, NONE))
    right = np.where(swapped, (both - gap) // 2, np.where(longer < 0, -gap, NONE))
    rest = hashes[a].astype(np.uint64) - np.where(left >= 0, _hash(left), np.uint64(0))
    return left, right, rest


def refused(
    bags: Bags, first: I64, second: I64, lengths: I64, differing: I64
) -> npt.NDArray[np.bool_]:
    """Which pairs within d ≤ 1 the rules for a single odd word refuse, [m]."""
    no = np.zeros(len(first), dtype=bool)
    single = np.flatnonzero((differing == 1) & (lengths < 2 * ONE_WORD_IN))
    one, other, rest = odd_words(bags, first[single], second[single])
    short = lengths[single] < LONG_ENOUGH
    typing = np.zeros(len(single), dtype=bool)
    typing[short] = [
        a != NONE and b != NONE and one_typing_error(bags.vocabulary[a], bags.vocabulary[b])
        for a, b in zip(one[short].tolist(), other[short].tolist(), strict=True)
    ]
    numbers = _digits(bags.vocabulary, one) & _digits(bags.vocabulary, other)
    # Which pairs share their common words with TEMPLATE or more rows in all.
    rows = np.concatenate([first[single], second[single]]).astype(np.uint64)
    seen = np.unique(np.stack([np.concatenate([rest, rest]), rows]), axis=1)[0]
    values, counts = np.unique(seen, return_counts=True)
    slots = np.isin(rest, values[counts >= TEMPLATE])
    no[single] = np.where(short, ~typing, numbers | slots)
    return no


def _digits(vocabulary: list[str], words: I64) -> npt.NDArray[np.bool_]:
    different, inverse = np.unique(words, return_inverse=True)
    known = [
        word != NONE and any(letter.isdigit() for letter in vocabulary[word])
        for word in different.tolist()
    ]
    return np.array(known, dtype=bool)[inverse]


def _sums(values: I64, starts: I64) -> I64:
    totals = np.concatenate(([0], np.cumsum(values)))
    return np.asarray(totals[starts[1:]] - totals[starts[:-1]])


def _hash(words: I64 | I32) -> U64:
    return mix(words.astype(np.uint64) + np.uint64(1))


def reordered(bags: Bags, first: I64, second: I64, differing: I64) -> npt.NDArray[np.bool_]:
    """Which pairs [m] need more than ``MOVES`` words moved, beside their ``differing`` words.

    The longest common subsequence of words is then shorter than the larger bag's size less
    ``differing`` less ``MOVES``. Pairs that agree place by place but for ``differing`` words, by
    far the most, are not aligned at all.
    """
    from rapidfuzz.distance import LCSseq

    larger = np.maximum(bags.counts_of(first), bags.counts_of(second))
    result = np.zeros(len(first), dtype=bool)
    for pair in np.flatnonzero(_misplaced(bags, first, second) > differing).tolist():
        one, other = (
            bags.sequence[bags.starts[row] : bags.starts[row + 1]].tolist()
            for row in (first[pair], second[pair])
        )
        common = int(LCSseq.similarity(one, other))
        result[pair] = larger[pair] - common > differing[pair] + MOVES
    return result


def _misplaced(bags: Bags, first: I64, second: I64) -> I64:
    """Places at which two rows hold different words; all of them where lengths differ."""
    counts = bags.counts_of(first)
    same = np.flatnonzero(counts == bags.counts_of(second))
    one, starts = take_rows(bags.sequence, bags.starts, first[same])
    other, _ = take_rows(bags.sequence, bags.starts, second[same])
    pair = np.repeat(np.arange(len(same)), np.diff(starts))
    counts[same] = np.bincount(pair[one != other], minlength=len(same))
    return counts
