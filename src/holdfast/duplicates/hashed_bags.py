"""Millions of texts as bags of hashed words: what ``words.py`` makes, in bounded memory.

The same two steps, with numbers that need no vocabulary. A word is the upper 31 bits of its hash.
Its *code* is its rarity, the logarithm of the number of words in its slot, one of at most 2^24
(five bits), before 26 bits of the hash: sorted codes begin with a text's rarest words, as the exact
numbers of ``words.py`` do, and a code below ``ONCE`` occurs once. Two different words pass for
equal with a probability of 1.5e-8; a slot that two words share makes both look a little commoner,
which moves no verified pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.duplicates.engines import MapEngine
from holdfast.duplicates.normalise import content_keys, folded, normal_forms, spaced_words
from holdfast.duplicates.texts import arrow_slice
from holdfast.duplicates.word_hashes import word_hashes
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

if TYPE_CHECKING:
    import pyarrow as pa

ONCE = 1 << 26
_KEPT_BITS = 31
_MOST_SLOT_BITS = 24
_WORDS = 1 << 25


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
    rarity = _rarities(flat, bits)
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
        sizes = np.cumsum(_bytes(block))
        edges = np.flatnonzero(np.diff(sizes // CHARACTERS) > 0) + 1
        for low, high in zip([0, *edges.tolist()], [*edges.tolist(), len(block)], strict=True):
            yield block[low:high]


def _read_block(texts: pa.Array) -> tuple[U64, U64, I32, I64, I32]:
    fold = folded(texts)
    bare = spaced_words(fold)
    hashes, counts = word_hashes(bare)
    lengths = np.maximum(written_words(fold), counts).astype(np.int32)
    keys = content_keys(normal_forms(texts, fold, bare))
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


def _rarities(flat: I32, bits: int) -> npt.NDArray[np.uint8]:
    """The whole logarithm to base 2 of how often each slot's words occur, [2 ^ bits]."""
    totals = np.zeros(1 << bits, dtype=np.int64)
    for begin in range(0, len(flat), _WORDS):
        slots = _slots(flat[begin : begin + _WORDS], bits)
        totals += np.bincount(slots, minlength=len(totals))
    return np.asarray(np.log2(np.maximum(totals, 1)).astype(np.uint8))


def _slots(words: I32, bits: int) -> I32:
    return np.asarray(words >> np.int32(_KEPT_BITS - bits))


def _bytes(strings: pa.Array) -> I64:
    import pyarrow.compute as pc

    return np.asarray(pc.binary_length(strings).to_numpy(zero_copy_only=False), dtype=np.int64)
