"""Images that are copies of one another after a resize, a recompression or a small change.

Each image becomes a thumbnail of ``THUMBNAIL_PIXELS`` × ``THUMBNAIL_PIXELS`` pixels, and of it a
perceptual hash of 64 bits (pHash: Zauner 2010; the signs of the low frequencies of a discrete
cosine transform about their median). Pairs whose hashes differ in few bits are candidates, and so
are each row's nearest by their coarse forms; a candidate is a copy when the two thumbnails, laid on
one another as well as a shift of ``MAX_SHIFT`` pixels allows, agree: the correlation of their
pixels is at least ``MIN_CORRELATION``.

Drawings of one stroke agree much without being copies (digits 1 of MNIST: up to 0.985), and two
photographs hardly ever do. So a copy must also stand out: what parts the pair is at most
``MAX_RELATIVE_DISTANCE`` of what parts either image from its tenth nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints
from holdfast.duplicates.vectors import SimilarPairs, Vectors, nearest_neighbours, pairs_of

if TYPE_CHECKING:
    from PIL import Image

THUMBNAIL_PIXELS = 32
MAX_SHIFT = 2
# Bits of 64 in which the hashes of copies differ at most; unrelated images differ in 32.
MAX_HASH_BITS = 12
MIN_CORRELATION = 0.92
MAX_RELATIVE_DISTANCE = 0.3
# In a table of fewer images nobody can say what is usual there: then copies must agree so much.
SMALL_TABLE, MIN_CORRELATION_SMALL_TABLE = 50, 0.98
# Under this spread of its brightness, of 255, a thumbnail shows nothing that could be compared.
FLAT_SPREAD = 4.0
_COARSE = 8
_LOW_FREQUENCIES = 8
_MIN_COARSE_CORRELATION = 0.8
# Before the pixels are compared: at 8 × 8 a shift changes as much as a copy may differ in all.
_MAX_COARSE_DISTANCE = 0.5
_CROWD_RANK = 10
_PAIRS_AT_ONCE = 4096
_CELLS = 1 << 23
U64 = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Thumbnails:
    """``pixels`` [n, 32, 32, 3] uint8, the upright images made small without regard to their
    shape, and ``shapes`` [n] width ÷ height of the originals."""

    pixels: Bytes
    shapes: Floats

    def __len__(self) -> int:
        return len(self.pixels)

    @cached_property
    def grey(self) -> Vectors:
        """Brightness [n, SIDE, SIDE], 0 … 255 (ITU-R BT.601)."""
        weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
        return self.pixels.astype(np.float32) @ weights

    @cached_property
    def flat(self) -> npt.NDArray[np.bool_]:
        """Which images are of one colour, or nearly so [n]."""
        return np.asarray(self.pixels.std(axis=(1, 2)).max(axis=1) < FLAT_SPREAD)

    @cached_property
    def hashes(self) -> U64:
        """pHash of each [n]: bit i is set where the i-th of the 8 × 8 lowest frequencies is above
        the median of all but the first."""
        from scipy.fft import dctn

        low = dctn(self.grey, axes=(1, 2), norm="ortho")[
            :, :_LOW_FREQUENCIES, :_LOW_FREQUENCIES
        ].reshape(len(self), -1)
        bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
        # The mean brightness says nothing about what is shown.
        bits[:, 0] = False
        return np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint64)[:, 0]

    @cached_property
    def coarse(self) -> Vectors:
        """Unit vectors [n, 8 · 8 · 3] of the mean-free image at 8 × 8: their product is a
        correlation. Zero for flat images."""
        step = THUMBNAIL_PIXELS // _COARSE
        small = self.pixels.reshape(len(self), _COARSE, step, _COARSE, step, 3).mean(axis=(2, 4))
        return _standardize(small.reshape(len(self), -1).astype(np.float32), self.flat)

    @cached_property
    def crowding(self) -> Vectors:
        """How alike the images round each are [n]: the correlation with its tenth nearest, at
        8 × 8."""
        similarity = nearest_neighbours(self.coarse, _CROWD_RANK).similarity
        return similarity[:, -1] if similarity.shape[1] else np.zeros(len(self), dtype=np.float32)


def thumbnail_of(image: Image.Image) -> tuple[Bytes, float]:
    """The pixels of a Pillow image made small, and its width ÷ height."""
    from PIL import Image

    small = image.convert("RGB").resize((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.uint8), image.width / max(1, image.height)


def near_duplicate_images(
    one: Thumbnails, other: Thumbnails | None = None, vectors: Vectors | None = None
) -> SimilarPairs:
    """The verified copies within a table, or of its images among those of another; exact ones
    are among them. ``similarity`` is the correlation of the pixels. ``vectors`` [n, d] of a model
    bring candidates of their own, which the pixels must confirm. Flat images are left out: they
    are all alike.

    Memory stays bounded; the time grows with the square of the images (6,000: 4 s; of MNIST,
    where many are alike, 10 s).
    """
    first, second = _candidates(one, other, vectors)
    searched = one if other is None else other
    coarse_correlation = np.einsum("nd,nd->n", one.coarse[first], searched.coarse[second])
    # What parts either image of each pair from its tenth nearest, the lesser.
    crowd_distance = np.full(len(first), 2, dtype=np.float32)
    if len(one) >= SMALL_TABLE:
        crowd_distance = 1 - one.crowding[first]
        if len(searched) >= SMALL_TABLE:
            crowd_distance = np.minimum(crowd_distance, 1 - searched.crowding[second])
    likely = (coarse_correlation >= _MIN_COARSE_CORRELATION) & (
        1 - coarse_correlation <= _MAX_COARSE_DISTANCE * crowd_distance
    )
    first, second = first[likely], second[likely]
    correlation = aligned_correlation(one.pixels, searched.pixels, first, second)
    is_copy = correlation >= (
        MIN_CORRELATION_SMALL_TABLE if len(one) < SMALL_TABLE else MIN_CORRELATION
    )
    is_copy &= 1 - correlation <= MAX_RELATIVE_DISTANCE * crowd_distance[likely]
    first, second, correlation = first[is_copy], second[is_copy], correlation[is_copy]
    order = np.lexsort((second, first, -correlation))
    return SimilarPairs(first[order], second[order], correlation[order])


def aligned_correlation(one: Bytes, other: Bytes, first: Ints, second: Ints) -> Vectors:
    """The correlation [m] of the pixels of each pair where they overlap, at the best of all shifts
    by up to ``MAX_SHIFT`` pixels each way."""
    best = np.full(len(first), -1, dtype=np.float32)
    shifts = [
        (y, x) for y in range(-MAX_SHIFT, MAX_SHIFT + 1) for x in range(-MAX_SHIFT, MAX_SHIFT + 1)
    ]
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        a, b = one[first[part]], other[second[part]]
        # The best shift by brightness alone, then the colours there.
        grey_a, grey_b = (each.mean(axis=3, dtype=np.float32) for each in (a, b))
        by_shift = np.stack([_overlap(grey_a, grey_b, *move) for move in shifts])
        at = by_shift.argmax(axis=0)
        for number in np.unique(at):
            here = at == number
            best[start + np.flatnonzero(here)] = _overlap(a[here], b[here], *shifts[number])
    return best


def _overlap(one: Bytes | Vectors, other: Bytes | Vectors, down: int, right: int) -> Vectors:
    """The correlation of each pair of images [m, side, side, …] where they overlap."""
    x = one[
        :,
        max(0, down) : THUMBNAIL_PIXELS + min(0, down),
        max(0, right) : THUMBNAIL_PIXELS + min(0, right),
    ]
    y = other[
        :,
        max(0, -down) : THUMBNAIL_PIXELS - max(0, down),
        max(0, -right) : THUMBNAIL_PIXELS - max(0, right),
    ]
    flat = [_standardize(each.reshape(len(each), -1).astype(np.float32)) for each in (x, y)]
    correlation: Vectors = np.einsum("nd,nd->n", *flat)
    return correlation


def have_different_content(
    one: Sequence[str], other: Sequence[str], pairs: SimilarPairs
) -> npt.NDArray[np.bool_]:
    """Which pairs have different marks of their content [m]."""
    both = zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
    return np.array([one[a] != other[b] for a, b in both], dtype=bool)


def _candidates(
    one: Thumbnails, other: Thumbnails | None, vectors: Vectors | None = None
) -> tuple[Ints, Ints]:
    searched = one if other is None else other
    textured, pool = np.flatnonzero(~one.flat), np.flatnonzero(~searched.flat)
    coarse_pairs = pairs_of(
        nearest_neighbours(
            one.coarse[textured], among=None if other is None else searched.coarse[pool]
        ),
        _MIN_COARSE_CORRELATION,
        same_table=other is None,
    )
    firsts, seconds = [textured[coarse_pairs.first]], [pool[coarse_pairs.second]]
    if vectors is not None and other is None:
        by_vectors = pairs_of(
            nearest_neighbours(vectors[textured]), _MIN_COARSE_CORRELATION, same_table=True
        )
        firsts.append(textured[by_vectors.first])
        seconds.append(textured[by_vectors.second])
    step = max(1, _CELLS // max(1, len(pool)))
    for start in range(0, len(textured), step):
        block = textured[start : start + step]
        differing_bits = np.bitwise_count(one.hashes[block][:, None] ^ searched.hashes[pool][None])
        rows, places = np.nonzero(differing_bits <= MAX_HASH_BITS)
        a, b = block[rows], pool[places]
        once = a < b if other is None else np.ones(len(a), dtype=bool)
        firsts.append(a[once])
        seconds.append(b[once])
    pairs = np.unique(np.column_stack([np.concatenate(firsts), np.concatenate(seconds)]), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _standardize(vectors: Vectors, flat: npt.NDArray[np.bool_] | None = None) -> Vectors:
    """Without their mean and of unit length; zero where nothing is left."""
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    standardized: Vectors = np.divide(
        centred, length, out=np.zeros_like(centred), where=length > 1e-6
    )
    if flat is not None:
        standardized[flat] = 0
    return standardized
