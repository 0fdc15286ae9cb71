"""Near-duplicate images: equal after a resize, a recompression or a small change.

Each image becomes a thumbnail of ``THUMBNAIL_PIXELS`` × ``THUMBNAIL_PIXELS`` pixels, and the
thumbnail a perceptual hash of 64 bits (pHash: Zauner 2010; the signs of the low frequencies of a
discrete cosine transform relative to their median). Candidates are pairs whose hashes differ in few
bits, and each row's nearest rows by their coarse (8 × 8) forms. A candidate is a near-duplicate if
the two thumbnails match at the best shift of up to ``MAX_SHIFT`` pixels: the correlation of their
pixels is at least ``MIN_CORRELATION``.

Simple drawings correlate strongly without being duplicates (digits 1 of MNIST: up to 0.985); two
photographs hardly ever do. So a near-duplicate must also stand out: its distance (1 − correlation)
is at most ``MAX_RELATIVE_DISTANCE`` times the distance of either image to its tenth nearest.
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
# The hashes of candidates differ in at most this many of 64 bits; unrelated images differ in 32.
MAX_HASH_BITS = 12
MIN_CORRELATION = 0.92
MAX_RELATIVE_DISTANCE = 0.3
# With fewer images the usual distance is unknown; then near-duplicates need this correlation.
SMALL_TABLE, MIN_CORRELATION_SMALL_TABLE = 50, 0.98
# A thumbnail whose values vary by less than this (of 255) has nothing to compare.
FLAT_SPREAD = 4.0
_COARSE = 8
_LOW_FREQUENCIES = 8
_MIN_COARSE_CORRELATION = 0.8
# A filter before the pixels are compared: at 8 × 8 a shift changes as much as is allowed in total.
_MAX_COARSE_DISTANCE = 0.5
_CROWD_RANK = 10
_PAIRS_AT_ONCE = 4096
_CELLS = 1 << 23
U64 = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Thumbnails:
    """``pixels`` [n, 32, 32, 3] uint8, the upright images resized to a square, and ``shapes`` [n]
    the aspect ratios (width ÷ height) of the originals."""

    pixels: Bytes
    shapes: Floats

    def __len__(self) -> int:
        return len(self.pixels)

    @cached_property
    def grey(self) -> Vectors:
        """Brightness [n, 32, 32], 0 … 255 (ITU-R BT.601)."""
        weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
        return self.pixels.astype(np.float32) @ weights

    @cached_property
    def flat(self) -> npt.NDArray[np.bool_]:
        """Which images are of one colour, or nearly so [n]."""
        return np.asarray(self.pixels.std(axis=(1, 2)).max(axis=1) < FLAT_SPREAD)

    @cached_property
    def hashes(self) -> U64:
        """The pHash of each image [n]: bit i is set if the i-th of the 8 × 8 lowest frequencies is
        above the median of all but the first."""
        from scipy.fft import dctn

        low = dctn(self.grey, axes=(1, 2), norm="ortho")[
            :, :_LOW_FREQUENCIES, :_LOW_FREQUENCIES
        ].reshape(len(self), -1)
        bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
        # The mean brightness says nothing about the content.
        bits[:, 0] = False
        return np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint64)[:, 0]

    @cached_property
    def coarse(self) -> Vectors:
        """Unit vectors [n, 8 · 8 · 3] of the mean-free image at 8 × 8: their dot product is a
        correlation. Zero for flat images."""
        step = THUMBNAIL_PIXELS // _COARSE
        small = self.pixels.reshape(len(self), _COARSE, step, _COARSE, step, 3).mean(axis=(2, 4))
        return _standardize(small.reshape(len(self), -1).astype(np.float32), self.flat)

    @cached_property
    def crowding(self) -> Vectors:
        """How similar the neighbours of each image are [n]: the correlation with its tenth nearest,
        at 8 × 8."""
        similarity = nearest_neighbours(self.coarse, _CROWD_RANK).similarity
        return similarity[:, -1] if similarity.shape[1] else np.zeros(len(self), dtype=np.float32)


def thumbnail_of(image: Image.Image) -> tuple[Bytes, float]:
    """The thumbnail of a Pillow image, and the image's width ÷ height."""
    from PIL import Image

    small = image.convert("RGB").resize((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.uint8), image.width / max(1, image.height)


def near_duplicate_images(
    one: Thumbnails, other: Thumbnails | None = None, vectors: Vectors | None = None
) -> SimilarPairs:
    """The verified near-duplicates within a table, or between it and another, including exact
    duplicates. ``similarity`` is the correlation of the pixels. ``vectors`` [n, d] of a model add
    candidates, which the pixels must confirm. Flat images are excluded: they are all similar.

    Memory is bounded; the time grows with the square of the number of images (6,000: 4 s; MNIST,
    where many are similar, 10 s).
    """
    first, second = _candidates(one, other, vectors)
    searched = one if other is None else other
    coarse_correlation = np.einsum("nd,nd->n", one.coarse[first], searched.coarse[second])
    # The smaller of the distances of a pair's images to their tenth nearest.
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
    """The correlation [m] of the overlapping pixels of each pair, at the best shift of up to
    ``MAX_SHIFT`` pixels in each direction."""
    best = np.full(len(first), -1, dtype=np.float32)
    shifts = [
        (y, x) for y in range(-MAX_SHIFT, MAX_SHIFT + 1) for x in range(-MAX_SHIFT, MAX_SHIFT + 1)
    ]
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        a, b = one[first[part]], other[second[part]]
        # Find the best shift by brightness, then correlate the colours there.
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
    """Which pairs [m] have different content hashes."""
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
    """Vectors minus their mean, at unit length; zero if nothing remains."""
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    standardized: Vectors = np.divide(
        centred, length, out=np.zeros_like(centred), where=length > 1e-6
    )
    if flat is not None:
        standardized[flat] = 0
    return standardized
