"""Candidate pairs among millions of bags: the buckets of ``candidates.py`` in bounded passes.

A bucket is a pair of a text's ``depth`` rarest words (``rare_pairs`` says what that cannot miss).
All keys of ten million texts would fill gigabytes, so each pass makes those of one part of the
hash space, sorts them in place, a number of 64 bits each (hash, depth, row), and compares the
texts of a bucket. Passes know nothing of each other and may run side by side.

A pair is kept where bags and signatures allow it (``verify.py``); ``windowed`` texts stood in a
bucket of more than ``WINDOW`` texts that a third word did not make smaller, and met the next
``FEW`` alone.

Candidates of millions of bags → the pairs that a number of differing words allows, exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.duplicates.candidates import FEW, WINDOW, can_be_near, mix
from holdfast.duplicates.engines import MapEngine
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.duplicates.verify import differing_words, links_of, signatures
from holdfast.duplicates.words import I64, U64, Bags, run_lengths, run_starts

AT_ONCE = 1 << 22
_DEPTH_BITS = 4
DEEPEST = (1 << _DEPTH_BITS) - 1
_ROWS = 1 << 20


@dataclass(frozen=True, slots=True)
class BagSearch:
    """One search. ``limits`` [rows] are the most words that each text may differ in from a longer
    one; ``depths`` [rows] how many of its rarest words make its buckets; ``marks`` [rows] its
    signature. The hash space is in ``parts``, and ``bits`` number the rows."""

    bags: Bags
    limits: npt.NDArray[np.int16]
    depths: npt.NDArray[np.int8]
    marks: U64
    parts: int
    bits: int

    def one_pass(self, part: int) -> tuple[U64, I64]:
        """The pairs of one part of the hash space, and the rows that met only some of a bucket."""
        packed = np.concatenate([np.empty(0, np.uint64), *self._keys(part)])
        packed.sort()
        packed, sizes = self._shared(packed)
        small = sizes <= WINDOW
        found = [self._near(packed[small], WINDOW)]
        finer, sizes = self._shared(self._third_words(packed[~small]))
        small = sizes <= WINDOW
        found.append(self._near(finer[small], WINDOW))
        found.append(self._near(finer[~small], FEW))
        return np.unique(np.concatenate(found)), np.unique(self._rows(finer[~small]))

    def _keys(self, part: int) -> Iterator[U64]:
        bags = self.bags
        for begin in range(0, len(bags), _ROWS):
            rows = np.arange(begin, min(begin + _ROWS, len(bags)), dtype=np.int64)
            depths, starts = self.depths[rows], bags.starts[rows]
            for second in range(1, int(depths.max(initial=0))):
                deep = depths > second
                deep_rows, deep_starts = rows[deep], starts[deep]
                rarer = bags.bag[deep_starts + second].astype(np.uint64)
                for first in range(second):
                    word = bags.bag[deep_starts + first].astype(np.uint64)
                    keys = mix((word << np.uint64(32)) | rarer)
                    # A word that occurs once cannot be common to two texts.
                    here = (word >= bags.once) & (keys & np.uint64(self.parts - 1) == part)
                    yield self._packed(keys[here], second, deep_rows[here])

    def _third_words(self, packed: U64) -> U64:
        """The entries again for every later word among the depth's rarest and one more."""
        second = ((packed >> np.uint64(self.bits)) & np.uint64(DEEPEST)).astype(np.int64)
        rows, keys = self._rows(packed), packed >> np.uint64(self.bits + _DEPTH_BITS)
        depths = np.minimum(self.depths[rows].astype(np.int64) + 1, self.bags.counts_of(rows))
        # A text of nothing beyond the two words keeps its bucket.
        finer = [packed[depths <= second + 1]]
        for third in range(2, int(depths.max(initial=0))):
            later = (depths > third) & (second < third)
            word = self.bags.bag[self.bags.starts[rows[later]] + third].astype(np.uint64)
            again = mix(keys[later] ^ mix(word + np.uint64(1)))
            finer.append(self._packed(again, min(third, DEEPEST), rows[later]))
        entries = np.concatenate(finer)
        entries.sort()
        return entries

    def _near(self, packed: U64, window: int) -> U64:
        """The pairs within ``window`` places of one bucket that sizes and signatures allow."""
        rows, keys = self._rows(packed), packed >> np.uint64(self.bits + _DEPTH_BITS)
        mark, limit = self.marks[rows], self.limits[rows]
        count = self.bags.counts_of(rows).astype(np.int32)
        found = [np.empty(0, np.uint64)]
        alive = np.arange(len(keys) - 1, dtype=np.int64)
        for step in range(1, window):
            alive = alive[: np.searchsorted(alive, len(keys) - step)]
            alive = alive[keys[alive] == keys[alive + step]]
            if not len(alive):
                break
            other = alive + step
            most = np.minimum(limit[alive], limit[other])
            # Twice: up to so many words on either side.
            likely = np.bitwise_count(mark[alive] ^ mark[other]) <= 2 * most
            likely &= np.abs(count[alive] - count[other]) <= most
            one, two = rows[alive[likely]], rows[other[likely]]
            low, high = np.minimum(one, two), np.maximum(one, two)
            # One text may stand in a bucket twice, by two pairs of repeated words.
            apart = low < high
            found.append(((low << 32) | high)[apart].astype(np.uint64))
        return np.unique(np.concatenate(found))

    def _packed(self, keys: U64, second: int, rows: I64) -> U64:
        # The key's upper bits, without those that the part takes: its low ones.
        place = (np.uint64(second) << np.uint64(self.bits)) | rows.astype(np.uint64)
        shift = np.uint64(self.bits + _DEPTH_BITS)
        return np.asarray((keys >> shift << shift) | place)

    def _rows(self, packed: U64) -> I64:
        return np.asarray((packed & np.uint64((1 << self.bits) - 1)).astype(np.int64))

    def _shared(self, packed: U64) -> tuple[U64, I64]:
        """Sorted entries without those that are alone in their bucket, and the size of each
        one's."""
        counts = run_lengths(run_starts(packed >> np.uint64(self.bits + _DEPTH_BITS)))
        sizes = np.repeat(counts, counts)
        return packed[sizes > 1], sizes[sizes > 1]


def near_pairs(
    bags: Bags, most: npt.NDArray[Any], wanted: I64, engine: MapEngine
) -> tuple[SimilarPairs, int]:
    """The candidates whose bags differ in no more words than the smaller of their limits, in order;
    and how many rows met only some of a bucket.

    ``most`` [rows] is in how many words each text may differ from a longer one, ``wanted`` [rows]
    how many of its rarest words make its buckets, at most ``DEEPEST`` and as far as it has so many.
    Texts that are too short to have near-copies have neither.
    """
    able = can_be_near(bags)
    limits = np.where(able, np.minimum(most, np.iinfo(np.int16).max), -1).astype(np.int16)
    deep = np.minimum(np.minimum(wanted, bags.counts), DEEPEST)
    depths = np.where(able, deep, 0).astype(np.int8)
    entries = int((depths.astype(np.int64) * (depths - 1) // 2).sum())
    parts = 1 << max(0, (entries // AT_ONCE).bit_length())
    bits = max(1, (len(bags) - 1).bit_length())
    search = BagSearch(bags, limits, depths, signatures(bags), parts, bits)
    found = [np.empty(0, np.uint64)]
    windowed = np.zeros(len(bags), dtype=bool)
    for pairs, rows in engine.map(search.one_pass, range(parts)):
        found.append(pairs)
        windowed[rows] = True
    packed = np.unique(np.concatenate(found))
    first = (packed >> np.uint64(32)).astype(np.int64)
    second = (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)
    differing = differing_words(bags, first, second)
    kept = differing <= np.minimum(limits[first], limits[second])
    links = links_of(bags, first, second, differing).where(kept)
    return links, int(windowed.sum())
