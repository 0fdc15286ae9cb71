"""Pairs of rows that could be near-copies, without comparing all with all.

Rows of fewer than ``LONG`` words: two bags that differ in at most k words share the two rarest of
their common words, and those stand among the k + 2 rarest words of each (at most k rarer ones are
not common). So rows are bucketed by every pair of their k + 2 rarest words, and **no pair within
the rule of ``criterion.py`` is missed**: three buckets a row up to 15 words. This is the prefix
filter of set-similarity joins (Chaudhuri et al. 2006; Bayardo et al. 2007, "AllPairs") with pairs
for tokens, so that buckets stay small where single words are common.

Longer rows: bottom-k MinHash (Broder 1997) over runs of four words. With one word in eight
changed, more than half of the runs survive; of ``SKETCH`` = 24 about ten are shared.

A bucket larger than ``WINDOW`` is refined by a third rare word; where it stays larger, each row
meets the next ``FEW`` rows of its bucket only, until it has ``ENOUGH`` likely copies.
``Search.windowed`` counts the rows concerned.
MinHash over character shingles finds the same copies of short texts, but at one changed word in
ten (Jaccard about 0.7) needs some 40 hash functions a row for 95 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.duplicates.criterion import SHORTEST, allowed
from holdfast.duplicates.words import I64, U64, Bags, run_lengths, run_starts, spans

# A row of 49 words has 28 pairs of its rarest ones (k = 6). Their number grows with the square of
# k, that of a sketch's hashes does not.
LONG = 50
OVERLAP = 8
RUN = 4
SKETCH = 24
WINDOW = 64
FEW = 16
ENOUGH = 16
# Of 64-bit numbers: 16 MB a temporary array.
CHUNK = 1 << 21


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs of rows, ``first`` < ``second`` [m]; ``windowed`` where the buckets were too large."""

    first: I64
    second: I64
    windowed: bool


@dataclass(slots=True)
class Search:
    """One search over ``bags``; ``windowed`` is known once ``pairs`` is exhausted."""

    bags: Bags
    seed: int = 0
    windowed: int = 0

    def pairs(self) -> Iterator[Candidates]:
        """Candidate pairs, in chunks; a pair may come more than once."""
        yield from self._in_buckets(*rare_pairs(self.bags), refine=True)
        yield from self._in_buckets(*sketches(self.bags, self.seed), refine=False)

    def _in_buckets(self, keys: U64, rows: I64, refine: bool) -> Iterator[Candidates]:
        keys, rows, sizes = _shared(keys, rows)
        small = sizes <= WINDOW
        yield from _neighbours(keys[small], rows[small], WINDOW)
        keys, rows = keys[~small], rows[~small]
        if refine:
            keys, rows, sizes = _shared(*_third_words(self.bags, keys, rows))
            small = sizes <= WINDOW
            yield from _neighbours(keys[small], rows[small], WINDOW)
            keys, rows = keys[~small], rows[~small]
        self.windowed += len(np.unique(rows))
        yield from _neighbours(keys, rows, FEW)


def can_be_near(bags: Bags) -> npt.NDArray[np.bool_]:
    """Whether each row has words enough for near-copies, [rows]."""
    return np.asarray((bags.lengths >= SHORTEST) & (bags.counts >= SHORTEST))


def rare_pairs(bags: Bags) -> tuple[U64, I64]:
    """A bucket key for each pair of a short row's k + 2 rarest words, and the row: [m], [m]."""
    rows = np.flatnonzero(can_be_near(bags) & (bags.lengths < LONG))
    depth = np.minimum(allowed(bags.lengths[rows]) + 2, bags.counts[rows])
    keys: list[U64] = [np.empty(0, np.uint64)]
    owners: list[I64] = [np.empty(0, np.int64)]
    for second in range(1, int(depth.max(initial=0))):
        deep = rows[depth > second]
        rarer = bags.bag[bags.starts[deep] + second].astype(np.uint64)
        for first in range(second):
            rarest = bags.bag[bags.starts[deep] + first].astype(np.uint64)
            # A word that occurs once cannot be common to two rows.
            common = rarest >= bags.once
            # Numbers of words fit 32 bits (``words.py``), so that a pair is one key without a
            # collision.
            keys.append((rarest[common] << np.uint64(32)) | rarer[common])
            owners.append(deep[common])
    return np.concatenate(keys), np.concatenate(owners)


def sketches(bags: Bags, seed: int) -> tuple[U64, I64]:
    """The ``SKETCH`` smallest hashes of the word runs of each long row, and the row."""
    # The two searches overlap: two copies may stand on either side of ``LONG``, as they may differ
    # in an eighth of their words.
    rows = np.flatnonzero(can_be_near(bags) & (bags.lengths >= LONG - OVERLAP))
    keys: list[U64] = [np.empty(0, np.uint64)]
    owners: list[I64] = [np.empty(0, np.int64)]
    # In blocks of about ``CHUNK`` words.
    block_of = np.cumsum(bags.counts_of(rows)) // CHUNK
    for number in np.unique(block_of):
        block = rows[block_of == number]
        hashes, local = _run_hashes(bags, block, seed)
        # A run counts once in a row: one that is repeated would fill the sketch.
        order = np.lexsort((hashes, local))
        hashes, local = hashes[order], local[order]
        new = run_starts(local, hashes)
        hashes, local = hashes[new], local[new]
        firsts = np.searchsorted(local, np.arange(len(block)))
        lowest = np.arange(len(local)) - firsts[local] < SKETCH
        keys.append(hashes[lowest])
        owners.append(block[local[lowest]])
    return np.concatenate(keys), np.concatenate(owners)


def mix(values: U64) -> U64:
    """The finaliser of SplitMix64: a bijection of 64-bit numbers that looks random."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _run_hashes(bags: Bags, rows: I64, seed: int) -> tuple[U64, I64]:
    runs = bags.counts[rows] - RUN + 1
    runs = np.maximum(runs, 1)
    at = spans(bags.starts[rows], runs)
    hashes = np.full(len(at), seed, dtype=np.uint64)
    last = len(bags.sequence) - 1
    for step in range(RUN):
        word = bags.sequence[np.minimum(at + step, last)].astype(np.uint64)
        # SplitMix64's own step, the golden ratio in 64 bits; + 1, since word 0 would add nothing.
        hashes = mix(hashes + (word + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    return hashes, np.repeat(np.arange(len(rows)), runs)


def _shared(keys: U64, rows: I64) -> tuple[U64, I64, I64]:
    """Sorted by key, then row, without repeats and lone keys; with the size of each bucket."""
    # By content-numbered rows within a key, so that windows do not depend on the file's order.
    order = np.lexsort((rows, keys))
    keys, rows = keys[order], rows[order]
    new = run_starts(keys, rows)
    keys, rows = keys[new], rows[new]
    counts = run_lengths(run_starts(keys))
    sizes = np.repeat(counts, counts)
    return keys[sizes > 1], rows[sizes > 1], sizes[sizes > 1]


def _third_words(bags: Bags, keys: U64, rows: I64) -> tuple[U64, I64]:
    """Each (bucket, row) again for every third word among the row's k + 3 rarest.

    The third rarest common word stands there by the argument above. Rows with nothing beyond the
    two words keep their bucket.
    """
    depth = np.minimum(allowed(bags.lengths[rows]) + 3, bags.counts[rows])
    finer, owners = [keys[depth <= 2]], [rows[depth <= 2]]
    low = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    for third in range(2, int(depth.max(initial=0))):
        word = bags.bag[bags.starts[rows] + np.minimum(third, depth - 1)].astype(np.int64)
        # ``low`` is the key's second word. The third must not come before it, or each triple would
        # be met from three pairs.
        later = (depth > third) & (word >= low)
        finer.append(mix(keys[later] ^ mix(word[later].astype(np.uint64) + np.uint64(1))))
        owners.append(rows[later])
    return np.concatenate(finer), np.concatenate(owners)


def _neighbours(keys: U64, rows: I64, window: int) -> Iterator[Candidates]:
    """Each row with the next ``window`` − 1 rows of its bucket."""
    for begin in range(0, len(keys), CHUNK):
        alive = np.arange(begin, min(begin + CHUNK, len(keys)), dtype=np.int64)
        for step in range(1, window):
            alive = alive[alive + step < len(keys)]
            alive = alive[keys[alive] == keys[alive + step]]
            if not len(alive):
                break
            yield Candidates(rows[alive], rows[alive + step], window < WINDOW)
