"""Near-duplicate search for millions of texts in bounded memory, with bags of hashed words.

These are the two steps of ``words.py`` with numbers that need no vocabulary. A word is the upper 31
bits of its hash. Its *code* is its rarity (five bits), followed by 26 bits of the hash. The rarity
is the logarithm of the number of words in its slot, one of at most 2^24 slots. So sorted codes
begin with a text's rarest words, as the exact numbers of ``words.py`` do, and a code below
``ONCE_CODE`` occurs once. Two different words are taken for equal with a probability of 1.5e-8. If
two words share a slot, both seem slightly more frequent, which does not change any verified pair.

Words are hashed directly from Arrow's buffers, without Python strings. A word of at most eight
bytes is one number. SplitMix64's finaliser, a bijection, scrambles it, so that two different words
of the same length up to eight bytes never share a hash. Longer words are read in steps of eight
bytes, each mixed with the hash of the previous ones; any two of a million collide with a
probability of 3e-8.

Candidates come from the buckets of ``near_duplicates.py`` in bounded passes. A bucket is a pair of
a text's ``depth`` rarest words (``rare_pairs`` states which pairs that cannot miss). All keys of
ten million texts would take gigabytes. So each pass makes the keys of one part of the hash space,
sorts them in place as 64-bit numbers (hash, depth, row), and compares the texts of each bucket.
Passes are independent and may run in parallel. A pair is kept if bags and signatures allow it
(``near_duplicates.py``). ``windowed`` texts were in a bucket of more than ``MAX_BUCKET`` texts that
a third word did not reduce; they were compared only with the next ``NEIGHBOURS_IN_LARGE_BUCKET``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from holdfast.duplicates.engines import MapEngine
from holdfast.duplicates.near_duplicates import (
    MAX_BUCKET,
    NEIGHBOURS_IN_LARGE_BUCKET,
    differing_words,
    has_enough_words,
    mix_bits,
    signatures,
    similar_pairs_of,
)
from holdfast.duplicates.normalise import content_keys, fold_texts, join_forms, spaced_words
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.duplicates.words import (
    BLOCK_CHARACTERS,
    BLOCK_TEXTS,
    I32,
    I64,
    U64,
    Bags,
    HashedTexts,
    arrow_slice,
    run_lengths,
    run_starts,
    sorted_rows,
    starts_of,
    take_rows,
    written_words,
)

ONCE_CODE = 1 << 26
_HASH_BITS = 31
_MAX_SLOT_BITS = 24
_WORDS_AT_ONCE = 1 << 25
_BYTES_A_ROUND = 8
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ALL_BITS = np.uint64(0xFFFFFFFFFFFFFFFF)
# For longer words the rounds of eight bytes would cost more than a digest.
_LONGEST_IN_ROUNDS = 1024
Bytes = npt.NDArray[np.uint8]


def read_hashed(texts: Sequence[str], engine: MapEngine) -> HashedTexts:
    """Read every text once, in blocks: ``HashedTexts`` without a vocabulary; its ``words`` are the
    upper bits of their hashes. It takes about 30 bytes per text and 4 per word."""
    n = len(texts)
    keys, contents = np.empty(n, np.uint64), np.empty(n, np.uint64)
    lengths, counts = np.empty(n, np.int32), np.empty(n, np.int64)
    words: list[I32] = []
    at = 0
    for block in engine.map(_read_block, arrow_blocks(texts)):
        here = slice(at, at + len(block[0]))
        keys[here], contents[here], lengths[here], counts[here] = block[:4]
        words.append(block[4])
        at = here.stop
    return HashedTexts(keys, contents, lengths, _concatenate(words), starts_of(counts), [])


def hashed_bags(hashed: HashedTexts, rows: I64) -> Bags:
    """The bags of the selected rows, without ``sequence`` and vocabulary."""
    flat, starts = take_rows(hashed.words, hashed.starts, rows)
    # A few slots per word: a small table is fast to count, and 2^24 is far above any vocabulary.
    bits = min(_MAX_SLOT_BITS, (4 * len(flat) + 1).bit_length())
    totals = np.zeros(1 << bits, dtype=np.int64)
    for begin in range(0, len(flat), _WORDS_AT_ONCE):
        slots = _slots(flat[begin : begin + _WORDS_AT_ONCE], bits)
        totals += np.bincount(slots, minlength=len(totals))
    # The integer part of the base-2 logarithm of how often each slot's words occur.
    rarity = np.log2(np.maximum(totals, 1)).astype(np.uint8)
    for begin in range(0, len(flat), _WORDS_AT_ONCE):
        part = slice(begin, begin + _WORDS_AT_ONCE)
        hash_bits = flat[part] & np.int32(ONCE_CODE - 1)
        flat[part] = (rarity[_slots(flat[part], bits)].astype(np.int32) << 26) | hash_bits
    sorted_rows(flat, starts, flat)
    nothing = np.empty(0, np.int32)
    return Bags(nothing, flat, starts, hashed.lengths[rows], ONCE_CODE, [])


def arrow_blocks(texts: Sequence[str]) -> Iterator[Any]:
    """The texts as Arrow arrays of at most ``BLOCK_TEXTS`` texts and about ``BLOCK_CHARACTERS``
    bytes."""
    for begin in range(0, len(texts), BLOCK_TEXTS):
        block = arrow_slice(texts, begin, min(begin + BLOCK_TEXTS, len(texts)))
        sizes = np.cumsum(pc.binary_length(block).to_numpy(zero_copy_only=False), dtype=np.int64)
        edges = np.flatnonzero(np.diff(sizes // BLOCK_CHARACTERS) > 0) + 1
        for low, high in zip([0, *edges.tolist()], [*edges.tolist(), len(block)], strict=True):
            yield block[low:high]


def _read_block(texts: pa.Array) -> tuple[U64, U64, I32, I64, I32]:
    fold = fold_texts(texts)
    bare = spaced_words(fold)
    hashes, counts = word_hashes(bare)
    lengths = np.maximum(written_words(fold), counts).astype(np.int32)
    keys = content_keys(join_forms(fold, bare))
    words = (hashes >> np.uint64(64 - _HASH_BITS)).astype(np.int32)
    return keys, content_keys(texts), lengths, counts, words


def _concatenate(parts: list[I32]) -> I32:
    flat = np.empty(sum(map(len, parts)), dtype=np.int32)
    at = 0
    for number, part in enumerate(parts):
        flat[at : at + len(part)] = part
        at += len(part)
        # Release each part once copied, so that all words are never in memory twice.
        parts[number] = flat[:0]
    return flat


def _slots(words: I32, bits: int) -> I32:
    return np.asarray(words >> np.int32(_HASH_BITS - bits))


def word_hashes(spaced: pa.Array) -> tuple[U64, I64]:
    """The hash of each word [words], in reading order, and the number of words of each text [n].
    ``spaced`` is an Arrow array of large strings, with words separated by spaces
    (``spaced_words``)."""
    data, offsets = buffers(spaced)
    if not len(data):
        return np.empty(0, np.uint64), np.zeros(len(spaced), np.int64)
    written = data != ord(" ")
    begins, ends = written.copy(), written.copy()
    begins[1:] &= ~written[:-1]
    ends[:-1] &= ~written[1:]
    # The end of a text ends a word, as a space does.
    edges = offsets[:-1][np.diff(offsets) > 0]
    begins[edges] = written[edges]
    last = offsets[1:][np.diff(offsets) > 0] - 1
    ends[last] = written[last]
    starts = np.flatnonzero(begins)
    counts = np.diff(np.searchsorted(starts, offsets))
    return hash_spans(data, starts, np.flatnonzero(ends) + 1), counts


def hash_spans(data: Bytes, starts: I64, ends: I64) -> U64:
    """A 64-bit hash of each span of bytes ``data[starts[i]:ends[i]]`` [m]."""
    padded = np.zeros(len(data) + _BYTES_A_ROUND, dtype=np.uint8)
    padded[: len(data)] = data
    # Eight bytes from any position as one number: a view with a stride of one byte.
    eights: U64 = np.ndarray((len(data) + 1,), dtype="<u8", buffer=padded.data, strides=(1,))
    rest = ends - starts
    hashes = mix_bits(rest.astype(np.uint64) * _GOLDEN)
    endless = np.flatnonzero(rest > _LONGEST_IN_ROUNDS)
    for span in endless.tolist():
        digest = hashlib.blake2b(
            data[starts[span] : ends[span]].tobytes(), digest_size=_BYTES_A_ROUND
        )
        hashes[span] = np.frombuffer(digest.digest(), dtype="<u8")[0]
    active = np.flatnonzero((rest > 0) & (rest <= _LONGEST_IN_ROUNDS))
    at, rest = starts[active], rest[active]
    while len(active):
        unused = np.uint64(8) * (_BYTES_A_ROUND - np.minimum(rest, _BYTES_A_ROUND)).astype(
            np.uint64
        )
        hashes[active] = mix_bits(hashes[active] ^ (eights[at] & (_ALL_BITS >> unused)))
        more = rest > _BYTES_A_ROUND
        active, at, rest = active[more], at[more] + _BYTES_A_ROUND, rest[more] - _BYTES_A_ROUND
    return hashes


def buffers(strings: pa.Array) -> tuple[Bytes, I64]:
    """The bytes of an Arrow array of large strings, and the offsets [n + 1] where each string
    begins and the last ends, from 0."""
    if not len(strings):
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, data = strings.buffers()
    # A slice shares its parent's buffers.
    at = np.frombuffer(offsets, dtype=np.int64)[strings.offset : strings.offset + len(strings) + 1]
    if data is None:
        return np.empty(0, np.uint8), at - at[0]
    return np.frombuffer(data, dtype=np.uint8)[at[0] : at[-1]], at - at[0]


ENTRIES_PER_PART = 1 << 22
_DEPTH_BITS = 4
MAX_DEPTH = (1 << _DEPTH_BITS) - 1
_ROWS_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class BagSearch:
    """One search. ``limits`` [rows] is the largest number of words in which each text may differ
    from a longer one; ``depths`` [rows] how many of its rarest words define its buckets;
    ``signatures`` [rows] its signature. The hash space is divided into ``parts``; ``bits`` is the
    number of bits of a row number."""

    bags: Bags
    limits: npt.NDArray[np.int16]
    depths: npt.NDArray[np.int8]
    signatures: U64
    parts: int
    bits: int

    def search_part(self, part: int) -> tuple[U64, I64]:
        """The pairs of one part of the hash space, and the rows that were compared with only a part
        of their bucket."""
        packed = np.concatenate([np.empty(0, np.uint64), *self._keys(part)])
        packed.sort()
        packed, sizes = self._in_shared_buckets(packed)
        small = sizes <= MAX_BUCKET
        pairs = [self._pairs_within(packed[small], MAX_BUCKET)]
        finer, sizes = self._in_shared_buckets(self._third_words(packed[~small]))
        small = sizes <= MAX_BUCKET
        pairs.append(self._pairs_within(finer[small], MAX_BUCKET))
        pairs.append(self._pairs_within(finer[~small], NEIGHBOURS_IN_LARGE_BUCKET))
        return np.unique(np.concatenate(pairs)), np.unique(self._row_numbers(finer[~small]))

    def _keys(self, part: int) -> Iterator[U64]:
        bags = self.bags
        for begin in range(0, len(bags), _ROWS_AT_ONCE):
            rows = np.arange(begin, min(begin + _ROWS_AT_ONCE, len(bags)), dtype=np.int64)
            depths, starts = self.depths[rows], bags.starts[rows]
            for second in range(1, int(depths.max(initial=0))):
                deep = depths > second
                deep_rows, deep_starts = rows[deep], starts[deep]
                rarer = bags.bag[deep_starts + second].astype(np.uint64)
                for first in range(second):
                    word = bags.bag[deep_starts + first].astype(np.uint64)
                    keys = mix_bits((word << np.uint64(32)) | rarer)
                    # A word that occurs once cannot be common to two texts.
                    here = (word >= bags.once) & (keys & np.uint64(self.parts - 1) == part)
                    yield self._pack(keys[here], second, deep_rows[here])

    def _third_words(self, packed: U64) -> U64:
        """The entries, refined by every later word among the ``depth`` + 1 rarest."""
        second = ((packed >> np.uint64(self.bits)) & np.uint64(MAX_DEPTH)).astype(np.int64)
        rows, keys = self._row_numbers(packed), packed >> np.uint64(self.bits + _DEPTH_BITS)
        depths = np.minimum(self.depths[rows].astype(np.int64) + 1, self.bags.counts_of(rows))
        # A text without further words keeps its bucket.
        finer = [packed[depths <= second + 1]]
        for third in range(2, int(depths.max(initial=0))):
            later = (depths > third) & (second < third)
            word = self.bags.bag[self.bags.starts[rows[later]] + third].astype(np.uint64)
            refined_keys = mix_bits(keys[later] ^ mix_bits(word + np.uint64(1)))
            finer.append(self._pack(refined_keys, min(third, MAX_DEPTH), rows[later]))
        entries = np.concatenate(finer)
        entries.sort()
        return entries

    def _pairs_within(self, packed: U64, window: int) -> U64:
        """The pairs within ``window`` positions of one bucket that sizes and signatures allow."""
        rows, keys = self._row_numbers(packed), packed >> np.uint64(self.bits + _DEPTH_BITS)
        mark, limit = self.signatures[rows], self.limits[rows]
        count = self.bags.counts_of(rows).astype(np.int32)
        pairs = [np.empty(0, np.uint64)]
        positions = np.arange(len(keys) - 1, dtype=np.int64)
        for step in range(1, window):
            positions = positions[: np.searchsorted(positions, len(keys) - step)]
            positions = positions[keys[positions] == keys[positions + step]]
            if not len(positions):
                break
            other = positions + step
            most = np.minimum(limit[positions], limit[other])
            # Twice, because each text may have up to that many words of its own.
            likely = np.bitwise_count(mark[positions] ^ mark[other]) <= 2 * most
            likely &= np.abs(count[positions] - count[other]) <= most
            one, two = rows[positions[likely]], rows[other[likely]]
            low, high = np.minimum(one, two), np.maximum(one, two)
            # A text may be in a bucket twice, through two pairs of repeated words.
            apart = low < high
            pairs.append(((low << 32) | high)[apart].astype(np.uint64))
        return np.unique(np.concatenate(pairs))

    def _pack(self, keys: U64, second: int, rows: I64) -> U64:
        # The key's upper bits; the part of the hash space uses its low bits.
        place = (np.uint64(second) << np.uint64(self.bits)) | rows.astype(np.uint64)
        shift = np.uint64(self.bits + _DEPTH_BITS)
        return np.asarray((keys >> shift << shift) | place)

    def _row_numbers(self, packed: U64) -> I64:
        return np.asarray((packed & np.uint64((1 << self.bits) - 1)).astype(np.int64))

    def _in_shared_buckets(self, packed: U64) -> tuple[U64, I64]:
        """Sorted entries without those that are alone in their bucket, and the bucket size of each
        entry."""
        counts = run_lengths(run_starts(packed >> np.uint64(self.bits + _DEPTH_BITS)))
        sizes = np.repeat(counts, counts)
        return packed[sizes > 1], sizes[sizes > 1]


def pairs_within_limits(
    bags: Bags, max_differing: npt.NDArray[Any], depth: I64, engine: MapEngine
) -> tuple[SimilarPairs, int]:
    """The candidates whose bags differ in at most the smaller of their limits, in order; and how
    many rows were compared with only a part of a bucket.

    ``max_differing`` [rows] is in how many words each text may differ from a longer one, ``depth``
    [rows] how many of its rarest words define its buckets, at most ``MAX_DEPTH`` and its number of
    words. Texts that are too short for near-duplicates are excluded.
    """
    is_eligible = has_enough_words(bags)
    limits = np.where(is_eligible, np.minimum(max_differing, np.iinfo(np.int16).max), -1).astype(
        np.int16
    )
    depth_of_row = np.minimum(np.minimum(depth, bags.counts), MAX_DEPTH)
    depths = np.where(is_eligible, depth_of_row, 0).astype(np.int8)
    entries = int((depths.astype(np.int64) * (depths - 1) // 2).sum())
    parts = 1 << max(0, (entries // ENTRIES_PER_PART).bit_length())
    bits = max(1, (len(bags) - 1).bit_length())
    search = BagSearch(bags, limits, depths, signatures(bags), parts, bits)
    packed_pairs = [np.empty(0, np.uint64)]
    windowed = np.zeros(len(bags), dtype=bool)
    for pairs, rows in engine.map(search.search_part, range(parts)):
        packed_pairs.append(pairs)
        windowed[rows] = True
    packed = np.unique(np.concatenate(packed_pairs))
    first = (packed >> np.uint64(32)).astype(np.int64)
    second = (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)
    differing = differing_words(bags, first, second)
    within_limit = differing <= np.minimum(limits[first], limits[second])
    links = similar_pairs_of(bags, first, second, differing).where(within_limit)
    return links, int(windowed.sum())
