"""Checks of pictures: planted copies, giveaways and blanks, and none in pictures without them."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from holdfast.data.images.decode import read_image
from holdfast.data.images.table import load_images
from holdfast.quality.checks import all_checks
from holdfast.quality.checks.shortcuts import image_giveaway
from holdfast.quality.image_facts import (
    CORNERS,
    QUALITIES,
    SCALARS,
    Traces,
    extract_traces,
    jpeg_quality,
    read_file_facts,
)
from holdfast.quality.runner import audit_table
from holdfast.quality.views import Images, TableRows, image_sample

NAMES = ["near_images", "image_conflicts", "image_leaks", "blank_images"]
NAMES += ["image_giveaway", "image_source"]


def scene(seed: int, size=(40, 40)) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def folder(path: Path, n: int = 60, save=None, first: int = 0) -> Path:
    """Two classes of ``n`` pictures; ``save`` writes picture number i of a class its own way."""
    for at, name in enumerate(("cat", "dog")):
        (path / name).mkdir(parents=True)
        for i in range(n):
            image, to = scene(first + 1000 * at + i), path / name / f"{i:04}"
            if save is None or not save(image, to, name, i):
                image.save(to.with_suffix(".jpg"), quality=88)
    return path


def view_of(path: Path, others: dict[str, Path] | None = None) -> Images:
    table = load_images(path)
    paths = table.column("path")
    given = {name: view_of(other) for name, other in (others or {}).items()}
    return Images(TableRows(table), paths, lambda at: read_image(paths[at]).image, others=given)


def found(name: str, view: Images):
    return all_checks()[name](view)


def test_pictures_without_a_fault_are_left_in_peace(tmp_path: Path) -> None:
    other = folder(tmp_path / "test", 20, first=500)
    view = view_of(folder(tmp_path / "train"), {"test": other})
    assert [name for name in NAMES if found(name, view) is not None] == []


def test_changed_copies_are_found_with_their_labels_and_in_the_test_folder(tmp_path: Path) -> None:
    def save(image, to, name, i):
        if name == "dog" and i < 5:  # a cat under another name
            scene(i).save(to.with_suffix(".jpg"), quality=35)
            return True
        if name == "cat" and 10 <= i < 15:
            scene(i + 20).resize((80, 80)).save(to.with_suffix(".jpg"), quality=90)
            return True
        return False

    def leaked(image, to, name, i):
        if i < 3:
            scene(40 + i + (1000 if name == "dog" else 0)).resize((30, 30)).save(
                to.with_suffix(".png")
            )
            return True
        return False

    test = folder(tmp_path / "test", 20, leaked, first=500)
    view = view_of(folder(tmp_path / "train", save=save), {"test": test})
    near = found("near_images", view)
    pairs = {(e.row, e.other_row) for e in near.examples}
    # Rows are places in the sorted paths: 60 cats, then 60 dogs.
    assert pairs == {(i, 60 + i) for i in range(5)} | {(i, i + 20) for i in range(10, 15)}
    conflicts = found("image_conflicts", view)
    assert conflicts.finding.rows == (*range(5), *range(60, 65))
    leaks = found("image_leaks", view)
    assert leaks.finding.rows == (40, 41, 42, 100, 101, 102)
    assert leaks.finding.score == pytest.approx(6 / 40)


def exif(tag: int, value: str):
    made = Image.Exif()
    made[tag] = value
    return made


def bordered(image, to):
    array = np.array(image)
    array[:2], array[-2:], array[:, :2], array[:, -2:] = 255, 255, 255, 255
    Image.fromarray(array).save(to.with_suffix(".jpg"), quality=88)


SEEN = {
    "compression": lambda image, to: image.save(to.with_suffix(".jpg"), quality=60),
    "format": lambda image, to: image.save(to.with_suffix(".png")),
    "size": lambda image, to: image.resize((44, 40)).save(to.with_suffix(".jpg"), quality=88),
    "border": bordered,
    "colour": lambda image, to: image.convert("L").save(to.with_suffix(".jpg"), quality=88),
}
UNSEEN = {
    "camera": lambda image, to: image.save(
        to.with_suffix(".jpg"), quality=88, exif=exif(0x0110, "Phone 3")
    ),
    "software": lambda image, to: image.save(
        to.with_suffix(".jpg"), quality=88, exif=exif(0x0131, "Editor 9")
    ),
    "date": lambda image, to: image.save(
        to.with_suffix(".jpg"), quality=88, exif=exif(0x0132, "2020:01:01 10:00:00")
    ),
    "file name": lambda image, to: image.save(to.with_name(f"scan_{to.name}.jpg"), quality=88),
}


@pytest.mark.slow
@pytest.mark.parametrize("fact", SEEN)
def test_a_mark_of_half_of_a_class_gives_it_away(fact: str, tmp_path: Path) -> None:
    def save(image, to, name, i):
        if name == "dog" and i % 2:
            SEEN[fact](image, to)
            return True
        return False

    giveaway = found("image_giveaway", view_of(folder(tmp_path / "train", save=save)))
    assert f"{fact} " in giveaway.finding.because
    assert "'dog'" in giveaway.finding.because
    # Of a border JPEG leaves not every one even.
    assert len(set(giveaway.finding.rows) & set(range(61, 120, 2))) >= (
        20 if fact == "border" else 30
    )


@pytest.mark.parametrize("fact", UNSEEN)
def test_a_mark_of_the_file_alone_is_a_source(fact: str, tmp_path: Path) -> None:
    def save(image, to, name, i):
        if name == "dog" and i % 2:
            UNSEEN[fact](image, to)
            return True
        return False

    view = view_of(folder(tmp_path / "train", save=save))
    source = found("image_source", view)
    assert source.finding.severity == "info"
    assert f"{fact} " in source.finding.because
    assert found("image_giveaway", view) is None


def test_a_mark_that_both_classes_have_gives_nothing_away(tmp_path: Path) -> None:
    def save(image, to, name, i):
        if i % 2:
            image.resize((44, 40)).save(to.with_suffix(".png"))
            return True
        return False

    assert found("image_giveaway", view_of(folder(tmp_path / "train", save=save))) is None


def test_sizes_that_vary_give_a_class_away_by_a_limit(tmp_path: Path) -> None:
    def save(image, to, name, i):
        side = 41 + i if name == "dog" else 40 - i // 3
        image.resize((side, 40)).save(to.with_suffix(".jpg"), quality=88)
        return True

    giveaway = found("image_giveaway", view_of(folder(tmp_path / "train", save=save)))
    assert "pixels wide or" in giveaway.finding.because
    assert giveaway.finding.severity == "error"


def test_pictures_of_one_colour_are_blank(tmp_path: Path) -> None:
    def save(image, to, name, i):
        if i < 2:
            Image.new("RGB", (40, 40), (250 - i, 250, 250)).save(to.with_suffix(".jpg"))
            return True
        return False

    blank = found("blank_images", view_of(folder(tmp_path / "train", save=save)))
    assert blank.finding.rows == (0, 1, 60, 61)


def test_a_picture_above_pillows_own_limit_is_looked_at(tmp_path: Path, monkeypatch) -> None:
    """As many pixels as the user allowed to be read may be looked at too."""
    path = folder(tmp_path / "train", 10)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    view = view_of(path)
    assert view.file_facts[0].pixel_facts["size"] == "40 × 40"


@pytest.mark.parametrize("quality", [10, 49, 50, 75, 88, 95, 100])
def test_the_quality_is_what_pillow_wrote(quality: int, tmp_path: Path) -> None:
    scene(0).save(tmp_path / "a.jpg", quality=quality)
    with Image.open(tmp_path / "a.jpg") as image:
        assert jpeg_quality(image.quantization) == quality


@pytest.mark.parametrize("size", [(40, 30), (900, 700)])
def test_a_border_has_a_width_and_a_colour(size: tuple[int, int], tmp_path: Path) -> None:
    array = np.array(scene(1, size))
    array[:5], array[-5:], array[:, :5], array[:, -6:] = 0, 0, 0, 0

    def border() -> str:
        Image.fromarray(array).save(tmp_path / "a.png")
        return read_file_facts(str(tmp_path / "a.png"), Image.fromarray(array)).pixel_facts[
            "border"
        ]

    assert border() == "5 or more pixels of (0, 0, 0)"
    array[3, 20] = 90
    assert border() == "2 to 4 pixels of (0, 0, 0)"
    array[0, 20] = 90
    assert border() == "none"


def red(image):
    image.paste((255, 0, 0), (0, 0, 6, 6))
    return image


def recompressed(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return Image.open(file).convert("RGB")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"), [(red, "top left corner (255, 0, 0)"), (recompressed, "JPEG compression")]
)
def test_pixels_give_a_class_away_whatever_the_files_say(change, said: str, tmp_path: Path) -> None:
    def save(image, to, name, i):
        (change(image) if name == "dog" else image).save(to.with_suffix(".png"))
        return True

    path = folder(tmp_path / "train", 40, save)
    assert found("image_giveaway", view_of(path)) is None
    table = load_images(path)
    finding = found("image_artefacts", image_sample(TableRows(table))).finding
    assert said in finding.because
    # What separates two classes marks either of them.
    assert "40 images of class" in finding.because
    assert finding.count >= 36
    assert "image_artefacts" in [one.check for one in audit_table(table)]


def test_pixels_of_classes_made_alike_are_left_in_peace(tmp_path: Path) -> None:
    view = image_sample(TableRows(load_images(folder(tmp_path / "train", 40))))
    assert found("image_artefacts", view) is None


def test_a_corner_of_half_of_a_class_is_not_said_to_give_it_away(tmp_path: Path) -> None:
    def save(image, to, name, i):
        (red(image) if name == "dog" and i % 2 else image).save(to.with_suffix(".png"))
        return True

    view = image_sample(TableRows(load_images(folder(tmp_path / "train", 40, save))))
    assert found("image_artefacts", view) is None


def test_classes_of_few_images_are_not_called_fine(tmp_path: Path) -> None:
    view = image_sample(TableRows(load_images(folder(tmp_path / "train", 10))))
    assert all_checks()["image_artefacts"].skip_reason(view).startswith("no class has 20")


def test_a_trace_that_chance_makes_is_no_finding(monkeypatch) -> None:
    """At the limit of what separates, the divisions drawn at random decide."""
    monkeypatch.setattr(image_giveaway, "MIN_SEPARATION", 0.2)
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 30)
    traces = Traces(rng.normal(size=(60, len(SCALARS))), np.zeros((60, len(CORNERS), 3)))
    table = SimpleNamespace(classes=("a", "b"))
    view = SimpleNamespace(labels=labels, traces=traces, rows=SimpleNamespace(table=table))
    assert image_giveaway.image_artefacts(view) is None


def test_the_quality_of_an_earlier_compression_is_its_own_best() -> None:
    images = [scene(seed, (64, 64)) for seed in range(20)]
    for quality in (50, 72, 90):
        file = [io.BytesIO() for _ in images]
        for image, one in zip(images, file, strict=True):
            image.save(one, "JPEG", quality=quality)
        again = [Image.open(one).convert("RGB") for one in file]
        gap = extract_traces(again, 20).scalars - extract_traces(images, 20).scalars
        best = int(np.argmin(np.median(gap[:, : len(QUALITIES)], axis=0)))
        assert abs(QUALITIES[best] - quality) <= 1
