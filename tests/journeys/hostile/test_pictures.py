"""Pictures that promise more than they hold, or are none: each is left out by name, and none costs
much."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from holdfast.core.errors import DataError
from holdfast.data.images.decode import UnreadableImage, content_hash, read_image
from holdfast.data.images.table import load_images
from holdfast.data.limits import Limits, use_limits

CASES = 5


def chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def png(width: int, height: int, *, bits: int = 1, beside: bytes = b"", cut: int = 0) -> bytes:
    """A grey picture of one value; ``cut`` lines of it are stored."""
    packer = zlib.compressobj(9)
    line = bytes(1 + (width * bits + 7) // 8)
    body = b"".join(packer.compress(line) for _ in range(cut or height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + beside
        + chunk(b"IDAT", body)
        + chunk(b"IEND", b"")
    )


def saved(format: str, mode: str = "RGB", size: tuple[int, int] = (16, 16), **how: Any) -> bytes:
    with io.BytesIO() as target:
        Image.new(mode, size).save(target, format, **how)
        return target.getvalue()


TEXT = zlib.compress(bytes(60_000_000))
UNREADABLE = {
    "large": png(50_000, 50_000, cut=1),
    "larger": png(200_000, 200_000, cut=1),
    "a little too large": png(7_000, 7_000),
    "no width": png(0, 5, cut=1),
    "a thread": png(1, 60_000),
    "cut short": png(300, 300, bits=8)[:-60],
    "no picture": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "html": b"<!doctype html>404",
    "a program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n",
    "empty": b"",
    "a chunk without end": png(9, 9, beside=struct.pack(">I", 2**31 - 1) + b"tEXt"),
    "a bitmap of lies": b"BM"
    + struct.pack("<IHHI", 100, 0, 0, 54)
    + struct.pack("<IiiHHIIiiII", 40, 40_000, 40_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "a map of lies": b"P6 99999999999999999999 9400 255\n",
    "text of 60 MB": png(9, 9, beside=chunk(b"zTXt", b"k\0\0" + TEXT)),
}


def fill(folder: Path, hostile: dict[str, bytes]) -> Path:
    for name, shade in (("cats", 30), ("dogs", 200)):
        (folder / name).mkdir(parents=True)
        for index in range(CASES * 4):
            picture = Image.new("RGB", (12, 12), (index * 9, shade, index))
            picture.save(folder / name / f"{index}.png")
    for name, content in hostile.items():
        (folder / "cats" / f"{name}.png").write_bytes(content)
    return folder


def test_what_is_no_whole_picture_is_left_out_by_name(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    table = load_images(fill(tmp_path / "pets", UNREADABLE))
    (told,) = [finding for finding in table.findings if finding.check == "broken_images"]
    assert told.count == len(UNREADABLE)
    assert len(table) == 8 * CASES
    assert "50000 × 50000 pixels" in told.because or "a little too large" in told.because
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024 < 300


@pytest.mark.parametrize("name", UNREADABLE)
def test_each_says_why(name: str, tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(UNREADABLE[name])
    with pytest.raises(UnreadableImage) as caught:
        read_image(path)
    assert str(caught.value)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("content", [UNREADABLE["a program"], saved("PCX"), saved("ICO")])
def test_a_format_that_is_not_named_is_not_even_tried(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(content)
    with pytest.raises(UnreadableImage, match="not an image"):
        read_image(tmp_path / "p.png")


def test_a_large_picture_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(png(1_500, 1_000))
    with (
        use_limits(Limits(megapixels=1)),
        pytest.raises(UnreadableImage, match=r"limits\.megapixels"),
    ):
        read_image(path)
    with use_limits(Limits(megapixels=2)):
        assert read_image(path).image.size == (1_500, 1_000)


@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_what_is_no_file_is_not_opened(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(UnreadableImage, match="not a regular file"):
        read_image(path)


@pytest.mark.parametrize(
    ("mode", "format"),
    [
        ("RGB", "PNG"),
        ("RGBA", "PNG"),
        ("L", "PNG"),
        ("LA", "PNG"),
        ("P", "GIF"),
        ("CMYK", "JPEG"),
        ("I;16", "PNG"),
        ("F", "TIFF"),
        ("1", "PNG"),
    ],
)
def test_strips_make_the_picture_that_the_whole_makes(
    mode: str, format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is worked out in strips is, to the last bit, what is worked out at once."""
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 4)).astype(np.uint8)
    if mode in ("I;16", "F"):
        kind, factor = (np.uint16, 200) if mode == "I;16" else (np.float32, 1 / 255)
        image = Image.fromarray((noise[..., 0] * factor).astype(kind))
    else:
        image = Image.fromarray(noise, "RGBA").convert(mode)
    image.save(tmp_path / "p", format)
    whole = read_image(tmp_path / "p")
    monkeypatch.setattr("holdfast.data.images.decode.STRIP_PIXELS", 70)
    parts = read_image(tmp_path / "p")
    assert parts.notes == whole.notes
    assert parts.image.tobytes() == whole.image.tobytes()
    assert content_hash(parts.image) == content_hash(whole.image)


def test_names_that_are_not_utf8_are_told_and_not_kept(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets", {})
    odd = os.fsencode(folder / "cats") + b"/\xe9t\xe9.txt"
    Path(os.fsdecode(odd)).write_bytes(b"no picture")
    (told,) = [f for f in load_images(folder).findings if f.check == "other_files"]
    told.because.encode()
    assert "?t?.txt" in told.because
    Path(os.fsdecode(odd.replace(b".txt", b".png"))).write_bytes(saved("PNG"))
    with pytest.raises(DataError, match="images whose names are not UTF-8"):
        load_images(folder)


def test_a_class_of_decomposed_accents_is_not_called_empty(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets", {})
    (folder / "dogs").rename(folder / "cafe\u0301")
    table = load_images(folder)
    assert table.classes == ("caf\u00e9", "cats")
    assert "empty_classes" not in {finding.check for finding in table.findings}


def test_a_path_with_a_nul_is_a_row_without_a_picture(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets", {})
    names = [f"{name}/{index}.png" for name in ("cats", "dogs") for index in range(CASES * 4)]
    rows = [json.dumps({"path": name, "label": name[:4]}) for name in [*names, "cats/a\0.png"]]
    (folder / "rows.jsonl").write_text("\n".join(rows))
    with contextlib.suppress(DataError):
        assert len(load_images(folder / "rows.jsonl")) == len(names)


def test_paths_that_can_be_none_are_rows_without_a_picture(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets", {})
    names = [f"{name}/{index}.png" for name in ("cats", "dogs") for index in range(CASES * 4)]
    rows = [f"{name},{name[:4]}" for name in names]
    rows += ["x" * 5_000 + ".png,cats", "a\x1b[m.png,cats"]
    (folder / "rows.csv").write_text("path,label\n" + "\n".join(rows))
    table = load_images(folder / "rows.csv")
    assert len(table) == len(names)
    (folder / "rows.csv").write_text("path,label\n" + "\n".join([*rows, "../../x.png,cats"]))
    with pytest.raises(DataError, match="outside"):
        load_images(folder / "rows.csv")
