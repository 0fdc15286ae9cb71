"""The one word in which two bags differ, without comparing word by word.

With x in the first bag alone and y in the second alone, the sums of the word numbers differ by
x − y and the sums of their squares by x² − y²; the quotient is x + y. Sums may wrap at 64 bits:
their differences are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.duplicates.candidates import mix
from holdfast.duplicates.criterion import (
    LONG_ENOUGH,
    ONE_WORD_IN,
    TEMPLATE,
    has_digit,
    one_typing_error,
)
from holdfast.duplicates.words import I32, I64, U64, Bags, take_rows

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
    typing[short] = _typing_errors(bags.vocabulary, odd.first[short], odd.second[short])
    numbers = _digits(bags.vocabulary, odd.first) & _digits(bags.vocabulary, odd.second)
    slots = _in_templates(odd.rest, first[single], second[single])
    no[single] = np.where(short, ~typing, numbers | slots)
    return no


def _in_templates(rest: U64, first: I64, second: I64) -> npt.NDArray[np.bool_]:
    """Which pairs share their common words with ``TEMPLATE`` or more rows in all."""
    both = np.stack(
        [np.concatenate([rest, rest]), np.concatenate([first, second]).astype(np.uint64)]
    )
    seen = np.unique(both, axis=1)[0]
    values, counts = np.unique(seen, return_counts=True)
    return np.isin(rest, values[counts >= TEMPLATE])


def _typing_errors(vocabulary: list[str], left: I64, right: I64) -> list[bool]:
    return [
        a != NONE and b != NONE and one_typing_error(vocabulary[a], vocabulary[b])
        for a, b in zip(left.tolist(), right.tolist(), strict=True)
    ]


def _digits(vocabulary: list[str], words: I64) -> npt.NDArray[np.bool_]:
    different, inverse = np.unique(words, return_inverse=True)
    known = [word != NONE and has_digit(vocabulary[word]) for word in different.tolist()]
    return np.array(known, dtype=bool)[inverse]


def _sums(values: npt.NDArray[np.int64], starts: I64) -> I64:
    totals = np.concatenate(([0], np.cumsum(values)))
    return np.asarray(totals[starts[1:]] - totals[starts[:-1]])


def _hash(words: I64 | I32) -> U64:
    return mix(words.astype(np.uint64) + np.uint64(1))
