"""Image provenance: properties and metadata of the file, and traces of processing in the pixels."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.records import Floats
from holdfast.data.images.decode import open_header
from holdfast.duplicates.images import Bytes, thumbnail_of

if TYPE_CHECKING:
    from PIL.Image import Image

# EXIF tag numbers.
_MAKE, _MODEL, _SOFTWARE, _DATE = 0x010F, 0x0110, 0x0131, 0x0132
_DIGITS = re.compile(r"\d+")
# Largest difference (of 255) among the pixels of a border: JPEG artefacts of the content reach into
# it.
_BORDER_TOLERANCE = 24
_GREY_TOLERANCE = 6
_COLOUR_STEP = 32
_MARGIN_PIXELS = 16


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Properties of one file. ``pixel_facts`` are visible in the pixels, so a network can use them
    as a shortcut; ``metadata_facts`` are only in the file. Both map names to text, ``"none"`` if
    the file lacks one. ``width`` and ``height`` are in pixels as stored, ``pixels`` is the
    thumbnail."""

    pixel_facts: dict[str, str]
    metadata_facts: dict[str, str]
    width: int
    height: int
    pixels: Bytes
    shape: float


def read_file_facts(path: str, image: Image) -> FileFacts:
    """The properties of the file ``path`` whose upright image is ``image``.

    ``compression`` identifies the JPEG quantisation tables, which differ by program and quality:
    the quality if they are the standard tables, else a checksum.
    """
    with open_header(path) as source:
        file_format, mode, exif = str(source.format), source.mode, source.getexif()
        tables = getattr(source, "quantization", None) or {}
        width, height = source.size
    pixels, shape = thumbnail_of(image)
    channel_range = pixels.astype(np.int16).max(axis=2) - pixels.min(axis=2)
    pixel_facts = {
        "format": file_format,
        "colour": "grey" if bool(channel_range.max(initial=0) <= _GREY_TOLERANCE) else "colour",
        "transparency": "yes" if mode in ("RGBA", "LA", "PA") else "no",
        "size": f"{width} × {height}",
        "compression": _compression(tables),
        "border": _border(image),
    }
    metadata_facts = {
        "camera": " ".join(str(exif.get(tag, "")).strip() for tag in (_MAKE, _MODEL)).strip(),
        "software": str(exif.get(_SOFTWARE, "")).strip(),
        "date": str(exif.get(_DATE, "")).strip()[:10],
        "metadata": "EXIF" if len(exif) else "",
        "file name": _DIGITS.sub("#", Path(path).stem),
    }
    metadata_facts = {name: value or "none" for name, value in metadata_facts.items()}
    return FileFacts(pixel_facts, metadata_facts, width, height, pixels, shape)


def jpeg_quality(tables: Mapping[int, Sequence[int]]) -> int | None:
    """The quality 1 … 100 on the Independent JPEG Group's scale whose luminance table has the same
    sum; ``None`` if no table has, as for cameras with their own tables."""
    if not tables:
        return None
    table_sum = int(np.sum(list(tables[min(tables)])))
    sums = [int(luminance_table(quality).sum()) for quality in range(1, 101)]
    return sums.index(table_sum) + 1 if table_sum in sums else None


def luminance_table(quality: int) -> Any:
    """The standard luminance table (ITU-T T.81, annex K.1) at a quality, scaled as in libjpeg."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((_LUMINANCE * scale + 50) // 100, 1, 255)


def _compression(tables: Mapping[int, Sequence[int]]) -> str:
    if not tables:
        return "none"
    quality = jpeg_quality(tables)
    if quality is not None:
        return f"JPEG quality {quality}"
    marks = b"".join(bytes(min(255, int(v)) for v in tables[key]) for key in sorted(tables))
    return f"JPEG tables {zlib.crc32(marks):08x}"


def _border(image: Image) -> str:
    """The colour and width of a border of one colour on all four sides; its width is that of the
    thinnest side. ``none`` without a border, or if the image is of one colour."""
    width, height = image.size
    strip = (min(_MARGIN_PIXELS, height), min(_MARGIN_PIXELS, width))
    top = _array(image, (0, 0, width, strip[0]))
    sides = [
        top,
        _array(image, (0, height - strip[0], width, height))[::-1],
        _array(image, (0, 0, strip[1], height)).swapaxes(0, 1),
        _array(image, (width - strip[1], 0, width, height)).swapaxes(0, 1)[::-1],
    ]
    colour = top[0, 0]
    is_even = [
        (np.abs(side - colour).max(axis=2) <= _BORDER_TOLERANCE).all(axis=1) for side in sides
    ]
    if is_even[0].all() and strip[0] == height:
        return "none"
    thickness = min(len(lines) if lines.all() else int(np.argmin(lines)) for lines in is_even)
    if thickness < 1:
        return "none"
    shade = ", ".join(str(int(c) // _COLOUR_STEP * _COLOUR_STEP) for c in colour)
    width_text = "1" if thickness == 1 else "2 to 4" if thickness < 5 else "5 or more"
    return f"{width_text} pixels of ({shade})"


def _array(image: Image, box: tuple[int, int, int, int]) -> Any:
    # Only the margins: a photograph of 20 million pixels need not become an array.
    return np.asarray(image.crop(box).convert("RGB"), dtype=np.int16)


_LUMINANCE = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
    ]
)


BLOCK = 8
# Below 40 compression shows in its blocks; above 98 it rounds less than storing the pixels does.
QUALITIES = tuple(range(40, 99))
_NEIGHBOURS = 4
_WINDOW = 128
_MAX_BLOCKS = 36
# Diagonals of a block's 64 frequencies, from coarse to fine.
_BANDS = ((1, 2), (3, 5), (6, 9), (10, 14))
# The sizes of a corner: the shorter side divided by these.
_CORNER_DIVISORS = (16, 8, 4)
_CORNER_NAMES = ("top left", "top right", "bottom left", "bottom right")
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)

SCALARS = (
    *(f"traces of JPEG compression near quality {quality}" for quality in QUALITIES),
    "steps between blocks of 8 × 8 pixels",
    *(f"energy ratio of frequency band {n + 1} of 4 to the band below" for n in range(1, 4)),
)
CORNERS = tuple(
    f"colour of the {place} corner" for part in _CORNER_DIVISORS for place in _CORNER_NAMES
)


@dataclass(frozen=True, slots=True)
class Traces:
    """The traces of n images: ``scalars`` [n, ``SCALARS``], and ``corners`` [n, ``CORNERS``, 3],
    the mean colours 0 … 255 of corner squares of 1/16, 1/8 and 1/4 of the shorter side."""

    scalars: Floats
    corners: Floats


def extract_traces(images: Iterable[Image], count: int) -> Traces:
    """The traces of ``count`` upright RGB Pillow images. An image smaller than 8 × 8 pixels has no
    block and gets zeros."""
    scalars, corners = np.zeros((count, len(SCALARS))), np.zeros((count, len(CORNERS), 3))
    for position, image in enumerate(images):
        if min(image.size) >= BLOCK:
            scalars[position], corners[position] = _scalars(image), _corners(image)
    # The changes [n, qualities] minus the median over neighbouring qualities: far below 0 at a
    # quality with which the image was compressed before (JPEG ghosts, Farid 2009).
    changes = scalars[:, : len(QUALITIES)]
    wide = ((0, 0), (_NEIGHBOURS, _NEIGHBOURS))
    padded = np.pad(changes, wide, constant_values=np.nan)
    offsets = [k for k in range(2 * _NEIGHBOURS + 1) if k != _NEIGHBOURS]
    shifted = [padded[:, k : k + changes.shape[1]] for k in offsets]
    relative_changes: Floats = changes - np.nanmedian(shifted, axis=0)
    scalars[:, : len(QUALITIES)] = relative_changes
    return Traces(scalars, corners)


def _scalars(image: Image) -> Any:
    from scipy.fft import dctn

    luma = np.asarray(image.crop(_window(image.size)), dtype=np.float32) @ _LUMA - 128
    # The discrete cosine transforms [blocks, 8, 8] of evenly spaced blocks.
    high, wide = (side // BLOCK for side in luma.shape)
    blocks = luma.reshape(high, BLOCK, wide, BLOCK).swapaxes(1, 2).reshape(-1, BLOCK, BLOCK)
    blocks = blocks[:: -(-len(blocks) // _MAX_BLOCKS)]
    spectrum = dctn(blocks, axes=(1, 2), norm="ortho")
    energy = (spectrum**2).mean(axis=0)
    diagonal = np.add.outer(np.arange(BLOCK), np.arange(BLOCK))
    bands = [energy[(diagonal >= low) & (diagonal <= high)].mean() for low, high in _BANDS]
    # How much compression at each quality would change the image [qualities].
    steps = spectrum[None] / _TABLES[:, None]
    changes = ((steps - np.rint(steps)) * _TABLES[:, None]) ** 2
    return np.concatenate(
        [
            np.log(changes.mean(axis=(1, 2, 3)) + 0.05),
            [_blocking(luma)],
            np.diff(np.log(np.add(bands, 0.1))),
        ]
    )


def _window(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The centre of an image, aligned with the compression grid from its top left corner."""
    starts = [max(0, (side - _WINDOW) // 2) // BLOCK * BLOCK for side in size]
    ends = [
        start + min(_WINDOW, side) // BLOCK * BLOCK
        for start, side in zip(starts, size, strict=True)
    ]
    return starts[0], starts[1], ends[0], ends[1]


def _blocking(luma: Floats) -> float:
    """The logarithm of the ratio of steps across block borders to steps within blocks."""
    across, down = np.abs(np.diff(luma, axis=1)), np.abs(np.diff(luma, axis=0))
    at, under = (np.arange(1, side) % BLOCK == 0 for side in luma.shape[::-1])
    borders = np.concatenate([across[:, at].ravel(), down[under].ravel()])
    within = np.concatenate([across[:, ~at].ravel(), down[~under].ravel()])
    if not len(borders):
        return 0.0
    return float(np.log((borders.mean() + 0.25) / (within.mean() + 0.25)))


def _corners(image: Image) -> Any:
    from PIL.Image import Resampling

    width, height = image.size
    colours = []
    for part in _CORNER_DIVISORS:
        side = max(1, round(min(image.size) / part))
        right, low = width - side, height - side
        for left, top in ((0, 0), (right, 0), (0, low), (right, low)):
            box = (left, top, left + side, top + side)
            colours.append(image.resize((1, 1), Resampling.BOX, box=box).getpixel((0, 0)))
    return np.array(colours, dtype=np.float64)


_TABLES = np.stack([luminance_table(quality) for quality in QUALITIES]).astype(np.float32)
_TABLES = _TABLES.reshape(-1, BLOCK, BLOCK)
