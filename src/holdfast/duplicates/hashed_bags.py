"""Millions of texts as bags of hashed words: what ``words.py`` makes, in bounded memory.

The same two steps, with numbers that need no vocabulary. A word is the upper 31 bits of its hash.
Its *code* is its rarity, the logarithm of the number of words in its slot, one of at most 2^24
(five bits), before 26 bits of the hash: sorted codes begin with a text's rarest words, as the exact
numbers of ``words.py`` do, and a code below ``ONCE`` occurs once. Two different words pass for
equal with a probability of 1.5e-8; a slot that two words share makes both look a little commoner,
which moves no verified pair.

Words are hashed straight from Arrow's buffers: no Python string is made of any. A word of at most
eight bytes is one number; SplitMix64's finaliser, a bijection, makes it look random, so that two
different words of one length up to eight bytes never share a hash. Longer ones are taken in eights,
each mixed with what came before; any two of a million collide with a probability of 3e-8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from holdfast.duplicates.candidates import mix
from holdfast.duplicates.engines import MapEngine
from holdfast.duplicates.normalise import content_keys, folded, joined_forms, spaced_words
from holdfast.duplicates.texts import arrow_slice
from holdfast.duplicates.words import (
    BLOCK,
    CHARACTERS,
    I32,
    I64,
    U64,
    Bags,
    HashedTexts,
    sorted_rows,
    starts_of,
    take_rows,
    written_words,
)

ONCE = 1 << 26
_KEPT_BITS = 31
_MOST_SLOT_BITS = 24
_WORDS = 1 << 25
_EIGHT = 8
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
# Beyond it the rounds of eight bytes would cost more than a digest.
_ENDLESS = 1024
Bytes = npt.NDArray[np.uint8]


def read_hashed(texts: Sequence[str], engine: MapEngine) -> HashedTexts:
    """Every text, read once, in blocks: ``Read`` without a vocabulary, its ``words`` the upper
    bits of their hashes. About 30 bytes a text and 4 a word."""
    n = len(texts)
    keys, contents = np.empty(n, np.uint64), np.empty(n, np.uint64)
    lengths, counts = np.empty(n, np.int32), np.empty(n, np.int64)
    words: list[I32] = []
    at = 0
    for block in engine.map(_read_block, blocks(texts)):
        here = slice(at, at + len(block[0]))
        keys[here], contents[here], lengths[here], counts[here] = block[:4]
        words.append(block[4])
        at = here.stop
    return HashedTexts(keys, contents, lengths, _joined(words), starts_of(counts), [])


def hashed_bags(read: HashedTexts, rows: I64) -> Bags:
    """The bags of the chosen rows. There is no ``sequence`` and no vocabulary."""
    flat, starts = take_rows(read.words, read.starts, rows)
    # A few slots a word: a small table is quick to count, and 2^24 is far above any vocabulary.
    bits = min(_MOST_SLOT_BITS, (4 * len(flat) + 1).bit_length())
    totals = np.zeros(1 << bits, dtype=np.int64)
    for begin in range(0, len(flat), _WORDS):
        slots = _slots(flat[begin : begin + _WORDS], bits)
        totals += np.bincount(slots, minlength=len(totals))
    # The whole logarithm to base 2 of how often each slot's words occur.
    rarity = np.log2(np.maximum(totals, 1)).astype(np.uint8)
    for begin in range(0, len(flat), _WORDS):
        part = slice(begin, begin + _WORDS)
        kept = flat[part] & np.int32(ONCE - 1)
        flat[part] = (rarity[_slots(flat[part], bits)].astype(np.int32) << 26) | kept
    sorted_rows(flat, starts, flat)
    nothing = np.empty(0, np.int32)
    return Bags(nothing, flat, starts, read.lengths[rows], ONCE, [])


def blocks(texts: Sequence[str]) -> Iterator[Any]:
    """The texts as Arrow arrays of at most ``BLOCK`` texts and about ``CHARACTERS`` bytes."""
    for begin in range(0, len(texts), BLOCK):
        block = arrow_slice(texts, begin, min(begin + BLOCK, len(texts)))
        if not len(block):
            continue
        sizes = np.cumsum(pc.binary_length(block).to_numpy(zero_copy_only=False), dtype=np.int64)
        edges = np.flatnonzero(np.diff(sizes // CHARACTERS) > 0) + 1
        for low, high in zip([0, *edges.tolist()], [*edges.tolist(), len(block)], strict=True):
            yield block[low:high]


def _read_block(texts: pa.Array) -> tuple[U64, U64, I32, I64, I32]:
    fold = folded(texts)
    bare = spaced_words(fold)
    hashes, counts = word_hashes(bare)
    lengths = np.maximum(written_words(fold), counts).astype(np.int32)
    keys = content_keys(joined_forms(fold, bare))
    words = (hashes >> np.uint64(64 - _KEPT_BITS)).astype(np.int32)
    return keys, content_keys(texts), lengths, counts, words


def _joined(parts: list[I32]) -> I32:
    whole = np.empty(sum(map(len, parts)), dtype=np.int32)
    at = 0
    for number, part in enumerate(parts):
        whole[at : at + len(part)] = part
        at += len(part)
        # Let go as it is copied: never are all words in memory twice.
        parts[number] = whole[:0]
    return whole


def _slots(words: I32, bits: int) -> I32:
    return np.asarray(words >> np.int32(_KEPT_BITS - bits))


def word_hashes(spaced: pa.Array) -> tuple[U64, I64]:
    """The words of texts: a hash of each [words], in reading order, and how many each text has
    [n]. ``spaced`` is an Arrow array of large strings, words apart by spaces (``spaced_words``)."""
    data, offsets = buffers(spaced)
    if not len(data):
        return np.empty(0, np.uint64), np.zeros(len(spaced), np.int64)
    written = data != ord(" ")
    begins, ends = written.copy(), written.copy()
    begins[1:] &= ~written[:-1]
    ends[:-1] &= ~written[1:]
    # A text ends a word as a space does.
    edges = offsets[:-1][np.diff(offsets) > 0]
    begins[edges] = written[edges]
    last = offsets[1:][np.diff(offsets) > 0] - 1
    ends[last] = written[last]
    starts = np.flatnonzero(begins)
    counts = np.diff(np.searchsorted(starts, offsets))
    return hash_spans(data, starts, np.flatnonzero(ends) + 1), counts


def hash_spans(data: Bytes, starts: I64, ends: I64) -> U64:
    """A 64-bit hash of each span of bytes ``data[starts[i]:ends[i]]`` [m]."""
    padded = np.zeros(len(data) + _EIGHT, dtype=np.uint8)
    padded[: len(data)] = data
    # Eight bytes from any place as one number: a view whose steps are of one byte.
    eights: U64 = np.ndarray((len(data) + 1,), dtype="<u8", buffer=padded.data, strides=(1,))
    rest = ends - starts
    hashes = mix(rest.astype(np.uint64) * _GOLDEN)
    endless = np.flatnonzero(rest > _ENDLESS)
    for one in endless.tolist():
        digest = hashlib.blake2b(data[starts[one] : ends[one]].tobytes(), digest_size=_EIGHT)
        hashes[one] = np.frombuffer(digest.digest(), dtype="<u8")[0]
    going = np.flatnonzero((rest > 0) & (rest <= _ENDLESS))
    at, rest = starts[going], rest[going]
    while len(going):
        unused = np.uint64(8) * (_EIGHT - np.minimum(rest, _EIGHT)).astype(np.uint64)
        hashes[going] = mix(hashes[going] ^ (eights[at] & (_ALL >> unused)))
        more = rest > _EIGHT
        going, at, rest = going[more], at[more] + _EIGHT, rest[more] - _EIGHT
    return hashes


def buffers(strings: pa.Array) -> tuple[Bytes, I64]:
    """The bytes of an Arrow array of large strings, and where each begins and the last ends
    [n + 1], from 0."""
    if not len(strings):
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, data = strings.buffers()
    # A slice shares its parent's buffers.
    at = np.frombuffer(offsets, dtype=np.int64)[strings.offset : strings.offset + len(strings) + 1]
    if data is None:
        return np.empty(0, np.uint8), at - at[0]
    return np.frombuffer(data, dtype=np.uint8)[at[0] : at[-1]], at - at[0]
