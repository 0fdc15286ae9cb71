"""A folder of pictures with links: none is read unasked, and asked for, none for ever."""

from __future__ import annotations

import subprocess
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from holdfast.core.errors import DataError
from holdfast.data.images.folders import is_image_folder, list_images
from holdfast.data.images.table import load_images
from holdfast.data.options import RowOptions
from holdfast.data.table import Table


def fill(folder: Path, count: int = 6, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    rng = np.random.default_rng(len(str(folder)))
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            noise = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(noise).save(folder / name / f"{index:02}.png")
    return folder


def checks(table: Table) -> dict[str, int]:
    return {finding.check: finding.count for finding in table.findings}


def test_a_ring_of_links_adds_no_picture(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets")
    (folder / "cat" / "all").symlink_to(folder)
    (folder / "dog" / "up").symlink_to("..")
    (folder / "itself").symlink_to("itself")
    table = load_images(folder)
    assert len(table.rows) == 12
    assert checks(table)["links"] == 3
    followed = load_images(folder, RowOptions(links="follow"))
    assert len(followed.rows) == 12
    assert followed.classes == ("cat", "dog")
    assert "links" not in checks(followed)


def test_what_lies_outside_is_read_only_when_asked_for(tmp_path: Path) -> None:
    elsewhere = fill(tmp_path / "elsewhere", classes=("bird",))
    folder = fill(tmp_path / "pets")
    (folder / "bird").symlink_to(elsewhere / "bird")
    (folder / "cat" / "theirs.png").symlink_to(elsewhere / "bird" / "00.png")
    table = load_images(folder)
    assert table.classes == ("cat", "dog")
    assert len(table.rows) == 12
    (told,) = [finding for finding in table.findings if finding.check == "links"]
    assert "bird, cat/theirs.png" in told.because
    assert "data.links=follow" in told.remedy
    assert load_images(folder, RowOptions(links="follow")).classes == ("bird", "cat", "dog")


def test_a_folder_of_links_alone_says_how_they_are_read(tmp_path: Path) -> None:
    elsewhere = fill(tmp_path / "elsewhere")
    folder = tmp_path / "pets"
    folder.mkdir()
    for name in ("cat", "dog"):
        (folder / name).symlink_to(elsewhere / name)
    assert is_image_folder(folder)
    with pytest.raises(DataError, match=r"data\.links=follow"):
        list_images(folder, True)
    assert len(list_images(folder, True, "follow").names) == 12


def test_a_tables_path_may_not_leave_its_folder_through_a_link(tmp_path: Path) -> None:
    elsewhere = fill(tmp_path / "elsewhere")
    folder = fill(tmp_path / "pets")
    (folder / "door").symlink_to(elsewhere)
    rows = [f"{name}/{index:02}.png,{name}" for name in ("cat", "dog") for index in range(6)]
    table = folder / "list.csv"
    table.write_text("\n".join(["path,label", *rows, "door/cat/01.png,cat"]) + "\n")
    with pytest.raises(DataError, match=r"row 12.*link"):
        load_images(table)
    assert len(load_images(table, RowOptions(links="follow")).rows) == 13


def test_a_folder_below_a_linked_one_is_the_users_own(tmp_path: Path) -> None:
    fill(tmp_path / "real")
    (tmp_path / "pets").symlink_to(tmp_path / "real")
    assert len(load_images(tmp_path / "pets").rows) == 12
    lines = [f"{name}/{i:02}.png,{name}\n" for name in ("cat", "dog") for i in range(3)]
    (tmp_path / "real" / "list.csv").write_text("path,label\n" + "".join(lines))
    assert len(load_images(tmp_path / "pets" / "list.csv").rows) == 6


def test_accents_composed_and_not_are_one_class(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    folder = fill(tmp_path / "drinks", classes=(composed, apart, "tea"))
    table = load_images(folder)
    assert table.classes == (composed, "tea")
    assert len(table.rows) == 18
    assert checks(table)["same_class_names"] == 1


def test_a_deep_folder_is_read(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets")
    deep = folder / "cat"
    for _ in range(1200):
        deep = Path(f"{deep}/d")
        deep.mkdir()
    Image.new("RGB", (8, 8), "red").save(deep / "deep.png")
    try:
        assert len(load_images(folder).rows) == 13
    finally:
        # Too deep for Python's own removal of a tree.
        subprocess.run(["rm", "-rf", folder], check=True)
