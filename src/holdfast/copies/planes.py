"""Pairs of near vectors among millions, by sorting: no graph to build, no package beyond NumPy.

The side of a random plane on which a vector lies is one bit; two vectors at the angle θ agree in
a bit with the probability 1 − θ ÷ π (Charikar 2002). Each *order* writes ``BITS`` such bits, sorts
the rows by them, and compares each row with the next ``WINDOW``: rows that share a long beginning
come to stand together, however crowded their neighbourhood is, so the work is bounded (the permuted
orders of Manku, Jain and Das Sarma 2007). A pair at a cosine of 0.95 is met in one of ``ORDERS``
= 48 orders of a million rows with a probability of about 0.99, at 0.9 with 0.95.

Pairs are kept by their cosine itself, so nothing wrong comes out; some may be missed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from holdfast.copies.engines import Engine, engine_here
from holdfast.copies.verify import Links
from holdfast.copies.words import I64, U64
from holdfast.core.errors import Defect

Vectors = npt.NDArray[np.float32]
ORDERS = 48
WINDOW = 8
BITS = 40
_ROWS = 1 << 16
_ROW_BITS = 24
# A pair at the least cosine differs in so many bits of its signature once in some thousands.
_TAIL = 3.3


def near_by_planes(
    vectors: Vectors,
    least: float,
    *,
    seed: int = 0,
    engine: Engine | None = None,
    orders: int = ORDERS,
) -> Links:
    """Pairs of rows with a cosine of at least ``least``: ``first`` < ``second``, each once, in
    order, ``similarity`` their cosine.

    ``vectors`` [n, d] of unit length, best with their mean taken out, or most planes have nearly
    all rows on one side. ``orders`` more find more. At most 2^24 rows.
    """
    if len(vectors) > 1 << _ROW_BITS:
        raise Defect("the rows", "are at most 2^24", len(vectors))
    if len(vectors) < 2:
        nothing = np.empty(0, np.int64)
        return Links(nothing, nothing, np.empty(0, np.float32))
    marks = np.column_stack([_bits(vectors, 64, seed + 1), _bits(vectors, 64, seed + 2)])
    apart = np.arccos(np.clip(least, -1, 1)) / np.pi * 128
    most = int(apart + _TAIL * np.sqrt(apart)) + 1

    def one_order(number: int) -> U64:
        keys = _bits(vectors, BITS, seed + 3 + number)
        # Key and row in one number: sorted in place, several times as fast as an order of keys.
        packed = (keys << np.uint64(_ROW_BITS)) | np.arange(len(keys), dtype=np.uint64)
        packed.sort()
        order = (packed & np.uint64((1 << _ROW_BITS) - 1)).astype(np.int64)
        mark = marks[order]
        found = [np.empty(0, np.uint64)]
        for step in range(1, min(WINDOW + 1, len(order))):
            flipped = np.bitwise_count(mark[step:] ^ mark[:-step]).sum(axis=1)
            here = np.flatnonzero(flipped <= most)
            one, other = order[here], order[here + step]
            low, high = np.minimum(one, other), np.maximum(one, other)
            kept = cosines(vectors, low, high) >= least
            found.append(((low << 32) | high)[kept].astype(np.uint64))
        return np.unique(np.concatenate(found))

    packed = np.unique(
        np.concatenate(list((engine or engine_here()).map(one_order, range(orders))))
    )
    first = (packed >> np.uint64(32)).astype(np.int64)
    second = (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return Links(first, second, cosines(vectors, first, second))


def cosines(vectors: Vectors, first: I64, second: I64) -> Vectors:
    """The cosine of each pair of rows of unit length [m]."""
    result = np.empty(len(first), dtype=np.float32)
    for begin in range(0, len(first), _ROWS):
        part = slice(begin, begin + _ROWS)
        result[part] = np.einsum("ij,ij->i", vectors[first[part]], vectors[second[part]])
    return result


def _bits(vectors: Vectors, bits: int, seed: int) -> U64:
    """On which side of ``bits`` random planes each row lies, as one number [n]."""
    planes = np.random.default_rng(seed).standard_normal((vectors.shape[1], bits), np.float32)
    result = np.zeros((len(vectors), 8), dtype=np.uint8)
    for begin in range(0, len(vectors), _ROWS):
        sides = vectors[begin : begin + _ROWS] @ planes > 0
        result[begin : begin + _ROWS, : bits // 8] = np.packbits(sides, axis=1)
    return result.view("<u8")[:, 0].astype(np.uint64)
