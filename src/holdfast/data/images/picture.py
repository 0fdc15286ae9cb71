"""One picture file → upright RGB pixels, a mark of their content, a thumbnail.

What is odd about a file is said in ``notes``, never mended in silence; what cannot be decoded whole
raises ``Unreadable``.
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

from holdfast.core.errors import MachineError
from holdfast.core.input_errors import first_line
from holdfast.data.limits import ASPECT, limits

if TYPE_CHECKING:
    from types import ModuleType

    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# EXIF's number of the tag; 1 is upright, and 0 no value of it.
ORIENTATION = 0x0112
UPRIGHT = (None, 0, 1)
TINY_SIDE = 4
STRIP_PIXELS = 1 << 20
# By content, not by name; an MPO is read as the JPEG that it begins with.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
# A report holds some dozens of them, as text.
THUMBNAIL_SIDE = 48
# A phone's JPEG may hold a second, smaller picture; that does not make it an animation.
STILL = ("MPO",)

NOTES = {
    "cmyk": "in printing colours (CMYK), read as RGB",
    "alpha": "partly transparent, laid on white",
    "turned": "turned upright, as the EXIF mark says",
    "animated": "of several frames, of which the first is read",
    "deep": "of more than 8 bits a channel, scaled to 8",
    "tiny": f"less than {TINY_SIDE} pixels wide or high: next to nothing to see",
}


class Unreadable(Exception):
    """A file that is no whole picture; its sentence says why."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An upright RGB image, and which of ``NOTES`` hold for its file."""

    image: Image
    notes: tuple[str, ...] = ()


def read_picture(path: str | Path) -> Picture:
    """Decode a file whole. Raises ``Unreadable`` for one that is damaged, cut short or no picture,
    ``MachineError`` where Pillow is absent."""
    pillow = _pillow()
    try:
        if not Path(path).is_file() and Path(path).exists():
            raise Unreadable("it is no regular file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _opened(path, pillow) as source:
                _refuse_large(*source.size)
                source.load()
                return _upright(source, pillow)
    except Unreadable:
        raise
    except (Exception, pillow.Image.DecompressionBombError) as error:
        raise Unreadable(_first(path, error)) from error


@contextmanager
def header(path: str | Path) -> Iterator[Any]:
    """A picture file as Pillow has it before a pixel is decoded: format, size, EXIF. For files that
    ``read_picture`` has read."""
    pillow = _pillow()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _opened(path, pillow) as source:
            yield source


@contextmanager
def _opened(path: str | Path, pillow: ModuleType) -> Iterator[Any]:
    """The file's header. Formats are named: of the others, one starts a program to be read."""
    before = pillow.Image.MAX_IMAGE_PIXELS
    # Pillow's own bound is raised with ours, or a setting could not raise it.
    pillow.Image.MAX_IMAGE_PIXELS = max(before or 0, limits().pixels)
    try:
        with pillow.Image.open(path, formats=FORMATS) as source:
            yield source
    finally:
        pillow.Image.MAX_IMAGE_PIXELS = before


def _refuse_large(width: int, height: int) -> None:
    """Refuse, before a pixel is decoded, what would fill memory: a few bytes can promise a picture
    of any size, and a processor makes a long strip longer still."""
    if width * height > limits().pixels:
        raise Unreadable(
            f"{width} × {height} pixels are more than {limits().megapixels:g} million; "
            "if it is right: --set data.limits.megapixels=…"
        )
    if max(width, height) > ASPECT * min(width, height):
        raise Unreadable(f"{width} × {height} pixels: one side is over {ASPECT} times the other")


def content_mark(image: Image) -> str:
    """One word that is equal for equal pixels and sizes, whatever the files are called."""
    # Equal bytes of another shape are another picture.
    digest = hashlib.blake2b(f"{image.mode} {image.size}".encode(), digest_size=16)
    for strip in _strips(image):
        digest.update(strip.tobytes())
    return f"sha{digest.hexdigest()}"


def thumbnail(path: str | Path, side: int = THUMBNAIL_SIDE) -> str:
    """A small copy as a ``data:`` address, at most about 3 kB; empty when it cannot be read."""
    try:
        image = read_picture(path).image
    except Unreadable:
        return ""
    image.thumbnail((side, side))
    with io.BytesIO() as target:
        image.save(target, "JPEG", quality=75)
        return "data:image/jpeg;base64," + base64.b64encode(target.getvalue()).decode()


def is_picture_name(name: str) -> bool:
    """Whether the ending is that of a picture file."""
    return name.lower().endswith(SUFFIXES)


def _upright(source: Image, pillow: ModuleType) -> Picture:
    notes = []
    if getattr(source, "is_animated", False) and source.format not in STILL:
        notes.append("animated")
    image: Any = source
    if source.getexif().get(ORIENTATION) not in UPRIGHT:
        notes.append("turned")
        image = pillow.ImageOps.exif_transpose(source)
    image, odd = _as_rgb(image, pillow)
    # What is handed on must not hold the file.
    image = image.copy() if image is source else image
    notes += odd
    if min(image.size) < TINY_SIDE:
        notes.append("tiny")
    return Picture(image, tuple(notes))


def _as_rgb(image: Image, pillow: ModuleType) -> tuple[Image, list[str]]:
    if image.mode == "CMYK":
        return image.convert("RGB"), ["cmyk"]
    if image.mode.startswith("I") or image.mode == "F":
        return _scaled(image, pillow).convert("RGB"), ["deep"]
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        seen_through = any(
            strip.convert("RGBA").getextrema()[3][0] < 255 for strip in _strips(image)
        )
        made = pillow.Image.new("RGB", image.size)
        top = 0
        for strip in _strips(image):
            layer = strip.convert("RGBA")
            if seen_through:
                white = pillow.Image.new("RGBA", layer.size, "white")
                layer = pillow.Image.alpha_composite(white, layer)
            made.paste(layer.convert("RGB"), (0, top))
            top += layer.size[1]
        return made, ["alpha"] if seen_through else []
    return (image if image.mode == "RGB" else image.convert("RGB")), []


def _scaled(image: Image, pillow: ModuleType) -> Any:
    """Deep grey to 8 bits: 16 bits keep their high half, floats in [0, 1] are stretched."""
    import numpy as np

    tops = (np.asarray(s, dtype=np.float64).max(initial=0.0) for s in _strips(image))
    top = float(np.max(list(tops)))
    factor = 255.0 if top <= 1.0 else 1.0 if top <= 255.0 else 255.0 / 65535.0
    made = pillow.Image.new("L", image.size)
    at = 0
    for strip in _strips(image):
        values = np.clip(np.asarray(strip, dtype=np.float64) * factor, 0, 255).astype(np.uint8)
        made.paste(pillow.Image.fromarray(values), (0, at))
        at += len(values)
    return made


def _strips(image: Image) -> Iterator[Any]:
    """The picture from top to bottom, about a million pixels at a time: what is worked out of it
    then takes little memory beside it."""
    width, height = image.size
    rows = max(1, STRIP_PIXELS // max(1, width))
    for top in range(0, height, rows):
        yield image.crop((0, top, width, min(height, top + rows)))


def _first(path: str | Path, error: BaseException) -> str:
    """The decoder's sentence without the path, which is this machine's."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if type(error).__name__ == "UnidentifiedImageError":
        return "not a picture, or its header is damaged"
    line = first_line(error).replace(str(path), "").replace("''", "the file")
    return " ".join(line.split()) or type(error).__name__


def _pillow() -> Any:
    try:
        import PIL
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise MachineError(
            "pictures",
            "need Pillow, which is not installed",
            None,
            "Install it: pip install 'holdfast[images]'.",
        ) from error
    return PIL
