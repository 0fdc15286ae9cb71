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

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
ORIENTATION = 0x0112
UPRIGHT = (None, 0, 1)
TINY_SIDE = 4
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pillow.Image.open(path) as source:
                source.load()
                return _upright(source, pillow)
    except (Exception, pillow.Image.DecompressionBombError) as error:
        raise Unreadable(_first(path, error)) from error


def content_mark(image: Image) -> str:
    """One word that is equal for equal pixels and sizes, whatever the files are called."""
    digest = hashlib.blake2b(f"{image.mode} {image.size}".encode(), digest_size=16)
    digest.update(image.tobytes())
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


def _upright(source: Image, pillow: Any) -> Picture:
    notes = []
    if getattr(source, "is_animated", False) and source.format not in STILL:
        notes.append("animated")
    image = source.copy()
    if source.getexif().get(ORIENTATION) not in UPRIGHT:
        notes.append("turned")
        image = pillow.ImageOps.exif_transpose(source)
    image, odd = _as_rgb(image, pillow)
    notes += odd
    if min(image.size) < TINY_SIDE:
        notes.append("tiny")
    return Picture(image, tuple(notes))


def _as_rgb(image: Any, pillow: Any) -> tuple[Any, list[str]]:
    if image.mode == "CMYK":
        return image.convert("RGB"), ["cmyk"]
    if image.mode.startswith("I") or image.mode == "F":
        return _scaled(image, pillow).convert("RGB"), ["deep"]
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        if layer.getextrema()[3][0] < 255:
            white = pillow.Image.new("RGBA", layer.size, "white")
            return pillow.Image.alpha_composite(white, layer).convert("RGB"), ["alpha"]
        image = layer
    return image.convert("RGB"), []


def _scaled(image: Any, pillow: Any) -> Any:
    """Deep grey to 8 bits: 16 bits keep their high half, floats in [0, 1] are stretched."""
    import numpy as np

    values = np.asarray(image, dtype=np.float64)
    top = float(values.max(initial=0.0))
    factor = 255.0 if top <= 1.0 else 1.0 if top <= 255.0 else 255.0 / 65535.0
    return pillow.Image.fromarray(np.clip(values * factor, 0, 255).astype(np.uint8))


def _first(path: str | Path, error: BaseException) -> str:
    """The decoder's sentence without the path, which is this machine's."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    line = (str(error).splitlines() or [""])[0].replace(str(path), "").replace("''", "the file")
    return " ".join(line.split()) or type(error).__name__


def _pillow() -> Any:
    with _installed():
        import PIL
        import PIL.Image
        import PIL.ImageOps

        return PIL


@contextmanager
def _installed() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MachineError(
            "pictures", "need Pillow, which is not installed", None,
            "Install it: pip install 'holdfast[images]'.",
        ) from error  # fmt: skip
