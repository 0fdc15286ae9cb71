"""Decode an image file to upright RGB pixels; hash its pixels; make a thumbnail.

Every change to an image is recorded in ``notes``; a file that cannot be decoded completely raises
``UnreadableImage``.
"""

from __future__ import annotations

import base64
import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.core.input_errors import first_line
from holdfast.core.packages import need_packages
from holdfast.data.limits import ASPECT, current_limits

if TYPE_CHECKING:
    from types import ModuleType

    from PIL.Image import Image

SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jfif",
    ".gif",
    ".bmp",
    ".webp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
)
# EXIF tag of the orientation; 1 is upright, and 0 is not a valid value.
ORIENTATION = 0x0112
UPRIGHT = (None, 0, 1)
TINY_PIXELS = 4
# The values of 12 bits.
DARK_BELOW = 4096
STRIP_PIXELS = 1 << 20
# Chosen by content, not by name; an MPO file is read as the JPEG at its beginning.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
# A report holds a few dozen of them, as text.
THUMBNAIL_PIXELS = 48
# A phone's JPEG may hold a second, smaller image; that does not make it an animation.
STILL_FORMATS = ("MPO",)

NOTES = {
    "cmyk": "in print colours (CMYK), converted to RGB",
    "alpha": "partly transparent, placed on white",
    "turned": "rotated upright according to their EXIF orientation",
    "animated": "with several frames, of which the first is used",
    "deep": "with more than 8 bits per channel, scaled to 8",
    "dark": "with 16 bits per channel but no value above 4,095, so they are nearly black: their "
    "values fill fewer bits (8, 10 or 12)",
    "tiny": f"less than {TINY_PIXELS} pixels wide or high: they show almost nothing",
}


class UnreadableImage(Exception):
    """A file that is not a complete image; the message says why."""


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An upright RGB image, and which of ``NOTES`` apply to its file."""

    image: Image
    notes: tuple[str, ...] = ()


def read_image(path: str | Path) -> DecodedImage:
    """Decode a file completely. Raises ``UnreadableImage`` if it is damaged, truncated or not an
    image, ``MachineError`` if Pillow is missing."""
    pillow = _pillow()
    try:
        if not Path(path).is_file() and Path(path).exists():
            raise UnreadableImage("it is not a regular file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _opened(path, pillow) as source:
                _refuse_large(*source.size)
                source.load()
                return _upright(source, pillow)
    except UnreadableImage:
        raise
    except (Exception, pillow.Image.DecompressionBombError) as error:
        raise UnreadableImage(_first_reason(path, error)) from error


@contextmanager
def open_header(path: str | Path) -> Iterator[Any]:
    """An image file as Pillow opens it before decoding a pixel: format, size, EXIF. For files that
    ``read_image`` has read."""
    pillow = _pillow()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _opened(path, pillow) as source:
            yield source


@contextmanager
def _opened(path: str | Path, pillow: ModuleType) -> Iterator[Any]:
    """Open the file's header. Formats are restricted: one of the others starts a program."""
    before = pillow.Image.MAX_IMAGE_PIXELS
    # ``_refuse_large`` looks at the header, before a pixel is decoded: Pillow's own limit is
    # another one.
    pillow.Image.MAX_IMAGE_PIXELS = None
    try:
        with pillow.Image.open(path, formats=FORMATS) as source:
            yield source
    finally:
        pillow.Image.MAX_IMAGE_PIXELS = before


def _refuse_large(width: int, height: int) -> None:
    """Refuse, before decoding, an image that would fill memory: a few bytes can declare an image
    of any size, and a processor scales a long strip up further."""
    if width * height > current_limits().pixels:
        raise UnreadableImage(
            f"{width} × {height} pixels are more than {current_limits().megapixels:g} million; "
            "to allow it, raise the limit: --set data.limits.megapixels=…"
        )
    if max(width, height) > ASPECT * min(width, height):
        raise UnreadableImage(
            f"{width} × {height} pixels: one side is more than {ASPECT} times the other"
        )


def content_hash(image: Image) -> str:
    """A hash of pixels and size, equal for images with the same content."""
    # The same bytes in another shape are another image.
    digest = hashlib.blake2b(f"{image.mode} {image.size}".encode(), digest_size=16)
    for strip in _strips(image):
        digest.update(strip.tobytes())
    return f"sha{digest.hexdigest()}"


def thumbnail(path: str | Path, max_pixels: int = THUMBNAIL_PIXELS) -> str:
    """A small copy as a ``data:`` address of at most about 3 kB; empty when the file cannot be
    read."""
    try:
        image = read_image(path).image
    except UnreadableImage:
        return ""
    image.thumbnail((max_pixels, max_pixels))
    with io.BytesIO() as target:
        image.save(target, "JPEG", quality=75)
        return "data:image/jpeg;base64," + base64.b64encode(target.getvalue()).decode()


def is_image_name(name: str) -> bool:
    """Whether the ending is that of an image file."""
    return name.lower().endswith(SUFFIXES)


def _upright(source: Image, pillow: ModuleType) -> DecodedImage:
    notes = []
    if getattr(source, "is_animated", False) and source.format not in STILL_FORMATS:
        notes.append("animated")
    image: Any = source
    if source.getexif().get(ORIENTATION) not in UPRIGHT:
        notes.append("turned")
        image = pillow.ImageOps.exif_transpose(source)
    image, colour_notes = _as_rgb(image, pillow)
    # The returned image must not keep the file open.
    image = image.copy() if image is source else image
    notes += colour_notes
    if min(image.size) < TINY_PIXELS:
        notes.append("tiny")
    return DecodedImage(image, tuple(notes))


def _as_rgb(image: Image, pillow: ModuleType) -> tuple[Image, list[str]]:
    if image.mode == "CMYK":
        return image.convert("RGB"), ["cmyk"]
    if image.mode.startswith("I") or image.mode == "F":
        scaled, notes = _scaled(image, pillow)
        return scaled.convert("RGB"), notes
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        is_transparent = any(
            strip.convert("RGBA").getextrema()[3][0] < 255 for strip in _strips(image)
        )
        converted = pillow.Image.new("RGB", image.size)
        top = 0
        for strip in _strips(image):
            layer = strip.convert("RGBA")
            if is_transparent:
                white = pillow.Image.new("RGBA", layer.size, "white")
                layer = pillow.Image.alpha_composite(white, layer)
            converted.paste(layer.convert("RGB"), (0, top))
            top += layer.size[1]
        return converted, ["alpha"] if is_transparent else []
    return (image if image.mode == "RGB" else image.convert("RGB")), []


def _scaled(image: Image, pillow: ModuleType) -> tuple[Any, list[str]]:
    """Deep grey to 8 bits, and its notes: integers by the range of 16 bits, floats by that from
    0 to 1. The factor never depends on a picture's own values: pictures that are nearly the
    same stay so."""
    import numpy as np

    strips = (np.asarray(strip, dtype=np.float64) for strip in _strips(image))
    ends = [(one.min(), one.max()) for one in strips]
    # A value that is not a number stays one in both.
    bottom, top = float(np.min(ends)), float(np.max(ends))
    number, limit = ("floating-point", 1) if image.mode == "F" else ("integer", 65535)
    if not (bottom >= 0 and top <= limit):
        raise UnreadableImage(
            f"it has {number} values from {bottom:.6g} to {top:.6g}, and only values from 0 to "
            f"{limit} have a known scale; save it with 8 or 16 bits per channel"
        )
    scaled = pillow.Image.new("L", image.size)
    at = 0
    for strip in _strips(image):
        values = np.asarray(strip, dtype=np.float64) * (255 if image.mode == "F" else 255 / 65535)
        scaled.paste(pillow.Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)), (0, at))
        at += len(values)
    return scaled, ["deep", *(["dark"] if image.mode != "F" and 0 < top < DARK_BELOW else [])]


def _strips(image: Image) -> Iterator[Any]:
    """The image in horizontal strips of about a million pixels, so that computations on it need
    little extra memory."""
    width, height = image.size
    rows = max(1, STRIP_PIXELS // max(1, width))
    for top in range(0, height, rows):
        yield image.crop((0, top, width, min(height, top + rows)))


def _first_reason(path: str | Path, error: BaseException) -> str:
    """The decoder's message without the path, which is specific to this machine."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if type(error).__name__ == "UnidentifiedImageError":
        return "not an image, or its header is damaged"
    line = first_line(error).replace(str(path), "").replace("''", "the file")
    return " ".join(line.split()) or type(error).__name__


def _pillow() -> Any:
    need_packages("reading images", "PIL", install="'holdfast[images]'")
    import PIL
    import PIL.Image
    import PIL.ImageOps

    return PIL
