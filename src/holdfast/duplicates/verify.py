"""Candidate pairs → the pairs that the rule of ``criterion.py`` holds for, exactly.

Two cheap tests come first and never refuse a true pair: the bags' sizes may differ by at most d,
and so may the words that only one side has, of which each can flip one bit of a 64-bit signature.

The one word in which two bags differ, without comparing word by word.

With x in the first bag alone and y in the second alone, the sums of the word numbers differ by
x − y and the sums of their squares by x² − y²; the quotient is x + y. Sums may wrap at 64 bits:
their differences are exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.duplicates.candidates import ENOUGH, Candidates, mix
from holdfast.duplicates.criterion import (
    LONG_ENOUGH,
    MOVES,
    ONE_WORD_IN,
    TEMPLATE,
    allowed,
    has_digit,
    one_typing_error,
)
from holdfast.duplicates.order import reordered
from holdfast.duplicates.words import I32, I64, U64, Bags, row_blocks, spans, take_rows

WORDS_AT_ONCE = 1 << 22
# Twelve bits number the pair within one sort (``_codes``).
PAIRS_AT_ONCE = 1 << 12


@dataclass(frozen=True, slots=True)
class Links:
    """Verified pairs of rows: ``first`` < ``second`` [m], ``similarity`` [m] in (0, 1]."""

    first: I64
    second: I64
    similarity: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.first)

    def where(self, mask: npt.NDArray[np.bool_]) -> Links:
        """The links that ``mask`` [m] keeps."""
        return Links(self.first[mask], self.second[mask], self.similarity[mask])


def verify(bags: Bags, candidates: Iterable[Candidates]) -> Links:
    """The near-copies among the candidates, each once, in order."""
    marks = signatures(bags)
    found = [np.empty(0, np.int64)]
    # How many likely copies each row has met: in a bucket of thousands of near-equal texts a row
    # that knows some is reached by links, without being compared with the rest.
    met = np.zeros(len(bags), dtype=np.int64)
    for chunk in candidates:
        first, second = chunk.first, chunk.second
        likely = _likely(bags, marks, first, second)
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
    kept = _within_rule(bags, first, second, differing)
    sizes = np.maximum(bags.counts[first], bags.counts[second])
    links = Links(first, second, (1 - differing / np.maximum(sizes, 1)).astype(np.float32))
    return links.where(kept)


def differing_words(bags: Bags, first: I64, second: I64) -> I64:
    """d of each pair [m]: the larger bag's size less the words in common, counted with repeats."""
    shared = np.empty(len(first), dtype=np.int64)
    for part in _parts(bags, first, second):
        shared[part] = _shared_words(bags, first[part], second[part])
    return np.maximum(bags.counts[first], bags.counts[second]) - shared


def _likely(bags: Bags, marks: U64, first: I64, second: I64) -> npt.NDArray[np.bool_]:
    limit = allowed(np.minimum(bags.lengths[first], bags.lengths[second]))
    flipped = np.bitwise_count(marks[first] ^ marks[second])
    sizes = np.abs(bags.counts[first] - bags.counts[second])
    # Twice: up to d words on either side.
    return np.asarray((flipped <= 2 * limit) & (sizes <= limit))


def _within_rule(bags: Bags, first: I64, second: I64, differing: I64) -> npt.NDArray[np.bool_]:
    lengths = np.minimum(bags.lengths[first], bags.lengths[second])
    kept = differing <= allowed(lengths)
    near = np.flatnonzero(kept)
    kept[near] = ~refused(bags, first[near], second[near], lengths[near], differing[near])
    short = np.flatnonzero(kept & (lengths < 2 * ONE_WORD_IN))
    kept[short] = ~reordered(bags, first[short], second[short], differing[short], MOVES)
    return np.asarray(kept)


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


def _shared_words(bags: Bags, first: I64, second: I64) -> I64:
    """The size of the intersection of two bags, for at most ``PAIRS_AT_ONCE`` pairs.

    Each word is numbered within its bag (the first "the", the second "the"), so that bags become
    sets; then a word is shared where it stands twice in the sorted union: 12 bits for the pair,
    32 for the word, 20 for the number.
    """
    codes = np.concatenate([_codes(bags, first), _codes(bags, second)])
    codes.sort()
    twice = codes[1:][codes[1:] == codes[:-1]] >> np.uint64(52)
    return np.bincount(twice.astype(np.int64), minlength=len(first))


def _codes(bags: Bags, rows: I64) -> U64:
    words, starts = take_rows(bags.bag, bags.starts, rows)
    pair = np.repeat(np.arange(len(rows), dtype=np.uint64), np.diff(starts))
    # Twenty bits are left for it, a million repeats of one word in one text.
    number: U64 = np.minimum(_occurrences(words, pair), np.uint64((1 << 20) - 1))
    return np.asarray((pair << np.uint64(52)) | (words.astype(np.uint64) << np.uint64(20)) | number)


def _occurrences(words: I32, pair: U64) -> U64:
    """0 for the first of equal neighbours in a row, then 1, 2, …"""
    if not len(words):
        return np.empty(0, np.uint64)
    new = np.append(True, (words[1:] != words[:-1]) | (pair[1:] != pair[:-1]))
    firsts = np.flatnonzero(new)
    counts = np.append(firsts[1:], len(words)) - firsts
    return spans(np.zeros(len(firsts), np.int64), counts).astype(np.uint64)


def _parts(bags: Bags, first: I64, second: I64) -> Iterable[slice]:
    words = np.cumsum(bags.counts[first] + bags.counts[second])
    at = 0
    while at < len(first):
        before = words[at - 1] if at else 0
        end = int(np.searchsorted(words, before + WORDS_AT_ONCE, "right"))
        end = min(max(end, at + 1), at + PAIRS_AT_ONCE)
        yield slice(at, end)
        at = end


NONE = -1


@dataclass(frozen=True, slots=True)
class Odd:
    """The odd words of pairs with d = 1: ``first`` and ``second`` [m], ``NONE`` where that side
    has none; ``rest`` [m] a hash of the words in common."""

    first: I64
    second: I64
    rest: U64


def odd_words(bags: Bags, first: I64, second: I64) -> Odd:
    """The odd words of pairs of bags that differ in one word."""
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
    return Odd(left, right, rest)


def refused(
    bags: Bags, first: I64, second: I64, lengths: I64, differing: I64
) -> npt.NDArray[np.bool_]:
    """Which pairs within d ≤ 1 the rules for a single odd word refuse, [m]."""
    no = np.zeros(len(first), dtype=bool)
    single = np.flatnonzero((differing == 1) & (lengths < 2 * ONE_WORD_IN))
    odd = odd_words(bags, first[single], second[single])
    short = lengths[single] < LONG_ENOUGH
    typing = np.zeros(len(single), dtype=bool)
    typing[short] = [
        a != NONE and b != NONE and one_typing_error(bags.vocabulary[a], bags.vocabulary[b])
        for a, b in zip(odd.first[short].tolist(), odd.second[short].tolist(), strict=True)
    ]
    numbers = _digits(bags.vocabulary, odd.first) & _digits(bags.vocabulary, odd.second)
    # Which pairs share their common words with TEMPLATE or more rows in all.
    rest = odd.rest
    both = np.stack(
        [
            np.concatenate([rest, rest]),
            np.concatenate([first[single], second[single]]).astype(np.uint64),
        ]
    )
    seen = np.unique(both, axis=1)[0]
    values, counts = np.unique(seen, return_counts=True)
    slots = np.isin(rest, values[counts >= TEMPLATE])
    no[single] = np.where(short, ~typing, numbers | slots)
    return no


def _digits(vocabulary: list[str], words: I64) -> npt.NDArray[np.bool_]:
    different, inverse = np.unique(words, return_inverse=True)
    known = [word != NONE and has_digit(vocabulary[word]) for word in different.tolist()]
    return np.array(known, dtype=bool)[inverse]


def _sums(values: npt.NDArray[np.int64], starts: I64) -> I64:
    totals = np.concatenate(([0], np.cumsum(values)))
    return np.asarray(totals[starts[1:]] - totals[starts[:-1]])


def _hash(words: I64 | I32) -> U64:
    return mix(words.astype(np.uint64) + np.uint64(1))
