"""Words as 64-bit hashes, straight from Arrow's buffers: no Python string is made of any.

A word of at most eight bytes is one number; SplitMix64's finaliser, a bijection, makes it look
random, so that two different words of one length up to eight bytes never share a hash. Longer ones
are taken in eights, each mixed with what came before; any two of a million collide with a
probability of 3e-8.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from holdfast.duplicates.candidates import mix
from holdfast.duplicates.words import I64, U64

if TYPE_CHECKING:
    import pyarrow as pa

_EIGHT = 8
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
# Beyond it the rounds of eight bytes would cost more than a digest.
_ENDLESS = 1024
Bytes = npt.NDArray[np.uint8]


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
