"""What an image's pixels keep of how it was made: earlier JPEG compression, blur, marks in corners.

A file's header says none of this once the image was saved again. Each trace is measured so that
what is shown cancels out, as far as it can: the grid of an image against its other pixels, one
quality against its neighbours, one frequency band against the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.records import Floats
from holdfast.quality.picture_facts import luminance_table

if TYPE_CHECKING:
    from PIL import Image

BLOCK = 8
# Below 40 compression is seen by its blocks; above 98 it rounds less than storing pixels does.
QUALITIES = tuple(range(40, 99))
_NEIGHBOURS = 4
_WINDOW = 128
_MOST_BLOCKS = 36
# Diagonals of a block's 64 frequencies, from coarse to fine.
_BANDS = ((1, 2), (3, 5), (6, 9), (10, 14))
# A corner of so small a part of the shorter side.
_PARTS = (16, 8, 4)
_PLACES = ("top left", "top right", "bottom left", "bottom right")
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)

SCALARS = (
    *(f"traces of JPEG compression near quality {quality}" for quality in QUALITIES),
    "steps between blocks of 8 × 8 pixels",
    *(f"energy of band {n + 1} of 4 of the frequencies to the band below" for n in range(1, 4)),
)
CORNERS = tuple(f"colour of the {place} corner" for part in _PARTS for place in _PLACES)


@dataclass(frozen=True, slots=True)
class Traces:
    """Of n images: ``scalars`` [n, ``SCALARS``], and ``corners`` [n, ``CORNERS``, 3], the mean
    colours 0 … 255 of each corner's sixteenth, eighth and quarter of the shorter side."""

    scalars: Floats
    corners: Floats


def traces_of(images: Iterable[Image.Image], count: int) -> Traces:
    """The traces of ``count`` upright RGB images of the library Pillow. One of fewer than 8 × 8
    pixels has zeros: it has no block."""
    scalars, corners = np.zeros((count, len(SCALARS))), np.zeros((count, len(CORNERS), 3))
    for at, image in enumerate(images):
        if min(image.size) >= BLOCK:
            scalars[at], corners[at] = _scalars(image), _corners(image)
    # The changes [n, qualities] less the median of those by the qualities around: far below 0 where
    # the image was compressed so before (JPEG ghosts, Farid 2009).
    changes = scalars[:, : len(QUALITIES)]
    wide = ((0, 0), (_NEIGHBOURS, _NEIGHBOURS))
    around = np.pad(changes, wide, constant_values=np.nan)
    offsets = [k for k in range(2 * _NEIGHBOURS + 1) if k != _NEIGHBOURS]
    shifted = [around[:, k : k + changes.shape[1]] for k in offsets]
    kept: Floats = changes - np.nanmedian(shifted, axis=0)
    scalars[:, : len(QUALITIES)] = kept
    return Traces(scalars, corners)


def _scalars(image: Image.Image) -> Any:
    luma = np.asarray(image.crop(_window(image.size)), dtype=np.float32) @ _LUMA - 128
    # The discrete cosine transforms [blocks, 8, 8] of blocks that are spread evenly.
    high, wide = (side // BLOCK for side in luma.shape)
    blocks = luma.reshape(high, BLOCK, wide, BLOCK).swapaxes(1, 2).reshape(-1, BLOCK, BLOCK)
    blocks = blocks[:: -(-len(blocks) // _MOST_BLOCKS)]
    spectrum = _COSINES @ blocks @ _COSINES.T
    energy = (spectrum**2).mean(axis=0)
    diagonal = np.add.outer(np.arange(BLOCK), np.arange(BLOCK))
    bands = [energy[(diagonal >= low) & (diagonal <= high)].mean() for low, high in _BANDS]
    # How much each quality would change the image, in logarithms [qualities].
    steps = spectrum[None] / _TABLES[:, None]
    lost = ((steps - np.rint(steps)) * _TABLES[:, None]) ** 2
    return np.concatenate(
        [
            np.log(lost.mean(axis=(1, 2, 3)) + 0.05),
            [_blocking(luma)],
            np.diff(np.log(np.add(bands, 0.1))),
        ]
    )


def _window(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The middle of an image, on the grid that compression would have laid from its top left."""
    starts = [max(0, (side - _WINDOW) // 2) // BLOCK * BLOCK for side in size]
    ends = [
        start + min(_WINDOW, side) // BLOCK * BLOCK
        for start, side in zip(starts, size, strict=True)
    ]
    return starts[0], starts[1], ends[0], ends[1]


def _blocking(luma: Floats) -> float:
    """The logarithm of the steps across the borders of blocks to those within."""
    across, down = np.abs(np.diff(luma, axis=1)), np.abs(np.diff(luma, axis=0))
    at, under = (np.arange(1, side) % BLOCK == 0 for side in luma.shape[::-1])
    borders = np.concatenate([across[:, at].ravel(), down[under].ravel()])
    within = np.concatenate([across[:, ~at].ravel(), down[~under].ravel()])
    if not len(borders):
        return 0.0
    return float(np.log((borders.mean() + 0.25) / (within.mean() + 0.25)))


def _corners(image: Image.Image) -> Any:
    from PIL import Image

    width, height = image.size
    found = []
    for part in _PARTS:
        side = max(1, round(min(image.size) / part))
        right, low = width - side, height - side
        for left, top in ((0, 0), (right, 0), (0, low), (right, low)):
            box = (left, top, left + side, top + side)
            found.append(image.resize((1, 1), Image.Resampling.BOX, box=box).getpixel((0, 0)))
    return np.array(found, dtype=np.float64)


def _cosines() -> Any:
    k = np.arange(BLOCK)
    waves = np.cos(np.outer(k, 2 * k + 1) * np.pi / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    waves[0] /= np.sqrt(2)
    return waves.astype(np.float32)


_COSINES = _cosines()
_TABLES = np.stack([luminance_table(quality) for quality in QUALITIES]).astype(np.float32)
_TABLES = _TABLES.reshape(-1, BLOCK, BLOCK)
