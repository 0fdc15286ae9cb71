"""Pictures as they come: odd ones are handled and named, broken ones refused by name."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from holdfast.data.images.decode import UnreadableImage, content_hash, read_image, thumbnail


def noise(width: int = 20, height: int = 16, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8))


def pixels(path: Path) -> Any:
    return np.asarray(read_image(path).image)


def test_a_plain_picture_is_read_pixel_for_pixel(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert np.array_equal(np.asarray(found.image), np.asarray(noise()))
    assert found.notes == ()


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_grey_palette_and_bit_pictures_are_rgb_without_a_note(tmp_path: Path, mode: str) -> None:
    noise().convert(mode).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert found.image.mode == "RGB"
    assert found.notes == ()


def test_printing_colours_become_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    found = read_image(tmp_path / "a.jpg")
    red, green, blue = np.asarray(found.image).reshape(-1, 3).mean(axis=0)
    assert found.notes == ("cmyk",)
    assert red > 200 > 60 > max(green, blue)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    picture.save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert found.notes == ("alpha",)
    assert (np.asarray(found.image) == 255).all()


def test_an_alpha_channel_that_hides_nothing_is_no_note(tmp_path: Path) -> None:
    noise().convert("RGBA").save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").notes == ()
    assert np.array_equal(pixels(tmp_path / "a.png"), np.asarray(noise()))


def test_a_turned_picture_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    noise().save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png").notes == ("turned",)
    assert np.array_equal(pixels(tmp_path / "a.png"), np.rot90(np.asarray(noise()), -1))


def test_an_animation_is_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    found = read_image(tmp_path / "a.gif")
    assert found.notes == ("animated",)
    assert found.image.getpixel((0, 0)) == (255, 0, 0)


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert found.notes == ("deep",)
    assert np.abs(np.asarray(found.image)[..., 0] - deep / 257).max() <= 1


def test_one_pixel_is_read_and_named(tmp_path: Path) -> None:
    noise(1, 1).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").notes == ("tiny",)


@pytest.mark.parametrize("kind", ["cut", "empty", "text", "absent"])
def test_what_is_no_whole_picture_is_refused(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "a.jpg", io.BytesIO()
    noise(200, 200).save(target, "JPEG")
    whole = target.getvalue()
    content = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"no picture"}.get(kind)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableImage) as caught:
        read_image(path)
    assert str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_the_mark_is_of_the_pixels_and_not_of_the_file(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.png")
    noise().save(tmp_path / "b.bmp")
    noise(seed=1).save(tmp_path / "c.png")
    noise().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "d.png")
    marks = [
        content_hash(read_image(tmp_path / name).image)
        for name in ("a.png", "b.bmp", "c.png", "d.png")
    ]
    assert marks[0] == marks[1]
    assert len(set(marks)) == 3
    assert all(mark.isalnum() for mark in marks)


def test_a_thumbnail_is_small_and_empty_for_a_broken_file(tmp_path: Path) -> None:
    noise(900, 600).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    assert thumbnail(tmp_path / "a.png").startswith("data:image/jpeg;base64,")
    assert len(thumbnail(tmp_path / "a.png")) < 6000
    assert thumbnail(tmp_path / "b.png") == ""
