"""One image file → upright RGB pixels, a mark of their content, a thumbnail.

What is odd about a file is said in ``notes``, never mended in silence; what cannot be decoded whole
raises ``UnreadableImage``.
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
from holdfast.data.limits import ASPECT, current_limits

if TYPE_CHECKING:
    from types import ModuleType

    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# EXIF's number of the tag; 1 is upright, and 0 no value of it.
ORIENTATION = 0x0112
UPRIGHT = (None, 0, 1)
TINY_PIXELS = 4
STRIP_PIXELS = 1 << 20
# By content, not by name; an MPO is read as the JPEG that it begins with.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
# A report holds some dozens of them, as text.
THUMBNAIL_PIXELS = 48
# A phone's JPEG may hold a second, smaller image; that does not make it an animation.
STILL_FORMATS = ("MPO",)

NOTES = {
    "cmyk": "in printing colours (CMYK), read as RGB",
    "alpha": "partly transparent, laid on white",
    "turned": "turned upright, as the EXIF mark says",
    "animated": "of several frames, of which the first is read",
    "deep": "of more than 8 bits a channel, scaled to 8",
    "tiny": f"less than {TINY_PIXELS} pixels wide or high: next to nothing to see",
}


class UnreadableImage(Exception):
    """A file that is no whole image; its sentence says why."""


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An upright RGB image, and which of ``NOTES`` hold for its file."""

    image: Image
    notes: tuple[str, ...] = ()


def read_image(path: str | Path) -> DecodedImage:
    """Decode a file whole. Raises ``UnreadableImage`` for one that is damaged, cut short or no
    image, ``MachineError`` where Pillow is absent."""
    pillow = _pillow()
    try:
        if not Path(path).is_file() and Path(path).exists():
            raise UnreadableImage("it is no regular file")
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
    """An image file as Pillow has it before a pixel is decoded: format, size, EXIF. For files that
    ``read_image`` has read."""
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
    pillow.Image.MAX_IMAGE_PIXELS = max(before or 0, current_limits().pixels)
    try:
        with pillow.Image.open(path, formats=FORMATS) as source:
            yield source
    finally:
        pillow.Image.MAX_IMAGE_PIXELS = before


def _refuse_large(width: int, height: int) -> None:
    """Refuse, before a pixel is decoded, what would fill memory: a few bytes can promise an image
    of any size, and a processor makes a long strip longer still."""
    if width * height > current_limits().pixels:
        raise UnreadableImage(
            f"{width} × {height} pixels are more than {current_limits().megapixels:g} million; "
            "if it is right: --set data.limits.megapixels=…"
        )
    if max(width, height) > ASPECT * min(width, height):
        raise UnreadableImage(
            f"{width} × {height} pixels: one side is over {ASPECT} times the other"
        )


def content_hash(image: Image) -> str:
    """One word that is equal for equal pixels and sizes, whatever the files are called."""
    # Equal bytes of another shape are another image.
    digest = hashlib.blake2b(f"{image.mode} {image.size}".encode(), digest_size=16)
    for strip in _strips(image):
        digest.update(strip.tobytes())
    return f"sha{digest.hexdigest()}"


def thumbnail(path: str | Path, max_pixels: int = THUMBNAIL_PIXELS) -> str:
    """A small copy as a ``data:`` address, at most about 3 kB; empty when it cannot be read."""
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
    # What is handed on must not hold the file.
    image = image.copy() if image is source else image
    notes += colour_notes
    if min(image.size) < TINY_PIXELS:
        notes.append("tiny")
    return DecodedImage(image, tuple(notes))


def _as_rgb(image: Image, pillow: ModuleType) -> tuple[Image, list[str]]:
    if image.mode == "CMYK":
        return image.convert("RGB"), ["cmyk"]
    if image.mode.startswith("I") or image.mode == "F":
        return _scaled(image, pillow).convert("RGB"), ["deep"]
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


def _scaled(image: Image, pillow: ModuleType) -> Any:
    """Deep grey to 8 bits: 16 bits keep their high half, floats in [0, 1] are stretched."""
    import numpy as np

    tops = (np.asarray(s, dtype=np.float64).max(initial=0.0) for s in _strips(image))
    top = float(np.max(list(tops)))
    factor = 255.0 if top <= 1.0 else 1.0 if top <= 255.0 else 255.0 / 65535.0
    scaled = pillow.Image.new("L", image.size)
    at = 0
    for strip in _strips(image):
        values = np.clip(np.asarray(strip, dtype=np.float64) * factor, 0, 255).astype(np.uint8)
        scaled.paste(pillow.Image.fromarray(values), (0, at))
        at += len(values)
    return scaled


def _strips(image: Image) -> Iterator[Any]:
    """The image from top to bottom, about a million pixels at a time: what is worked out of it
    then takes little memory beside it."""
    width, height = image.size
    rows = max(1, STRIP_PIXELS // max(1, width))
    for top in range(0, height, rows):
        yield image.crop((0, top, width, min(height, top + rows)))


def _first_reason(path: str | Path, error: BaseException) -> str:
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
