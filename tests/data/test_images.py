"""Folders and tables of pictures as rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from holdfast.core.decisions import record_decisions
from holdfast.core.errors import DataError
from holdfast.data.images.decode import UnreadableImage, read_image
from holdfast.data.images.folders import given_splits, is_image_folder, list_images
from holdfast.data.images.table import load_images, rows_left_out
from holdfast.data.options import RowOptions
from holdfast.split.split_table import split_table

CLASSES = ("cat", "dog")


def fill(folder: Path, count: int = 12, classes: tuple[str, ...] = CLASSES, seed: int = 0) -> Path:
    """``count`` different pictures of every class, one folder each."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            noise = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(noise).save(folder / name / f"{index:02}.png")
    return folder


def test_rows_are_the_sorted_paths_with_the_class_of_their_folder(tmp_path: Path) -> None:
    table = load_images(fill(tmp_path / "pets", 3))
    expected = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.png"))
    assert [Path(p).relative_to(tmp_path).as_posix() for p in table.column("path")] == expected
    assert table.column("row").tolist() == list(range(6))
    assert table.classes == CLASSES
    assert table.column("label").tolist() == [0, 0, 0, 1, 1, 1]
    assert len(set(table.column("text"))) == 6


def test_reading_twice_gives_the_same_rows(tmp_path: Path) -> None:
    one, two = (load_images(fill(tmp_path / "pets")) for _ in range(2))
    assert one.column("text") == two.column("text")
    assert one.column("path") == two.column("path")


def test_classes_that_are_numbers_stand_in_their_order(tmp_path: Path) -> None:
    assert load_images(fill(tmp_path / "d", 3, ("10", "9", "1"))).classes == ("1", "9", "10")


def test_broken_pictures_are_left_out_and_named_and_rows_keep_their_places(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets")
    (folder / "cat" / "00.png").write_bytes(b"broken")
    table = load_images(folder)
    (finding,) = [f for f in table.findings if f.check == "broken_images"]
    assert finding.rows == (0,)
    assert finding.fixed
    assert f"{Path('cat/00.png')} (" in finding.because
    assert table.column("row").tolist() == list(range(1, 24))
    assert table.source_rows == 24
    assert rows_left_out(table) == [0]
    assert not [f for f in table.findings if f.check == "missing_text"]


def test_odd_pictures_are_kept_and_named(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets")
    Image.new("CMYK", (8, 8)).save(folder / "dog" / "cmyk.jpg")
    Image.new("RGB", (1, 1)).save(folder / "dog" / "one.png")
    table = load_images(folder)
    found = {f.check: f.rows for f in table.findings}
    assert found == {"cmyk_images": (24,), "tiny_images": (25,)}
    assert len(table) == 26


def test_more_broken_than_whole_is_an_error(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets", 3)
    for path in (folder / "cat").iterdir():
        path.write_bytes(b"")
    (folder / "dog" / "00.png").write_bytes(b"")
    with pytest.raises(DataError, match="6 images, of which 4"):
        load_images(folder)


def test_one_class_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least two subfolders"):
        load_images(fill(tmp_path / "pets", classes=("cat",)))


def test_a_class_with_too_few_pictures_is_an_error_that_counts_only_whole_ones(
    tmp_path: Path,
) -> None:
    folder = fill(tmp_path / "pets", 3)
    (folder / "cat" / "00.png").write_bytes(b"")
    with pytest.raises(DataError, match="too small to split"):
        load_images(folder)


def test_hidden_and_foreign_files_are_not_rows(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets", 3)
    (folder / ".hidden").mkdir()
    shutil.copy(folder / "cat" / "00.png", folder / ".hidden" / "a.png")
    (folder / "cat" / "notes.txt").write_text("x")
    (folder / "empty").mkdir()
    with record_decisions() as log:
        listed = list_images(folder, by_class=True)
    assert len(listed.names) == 6
    assert {f.check for f in log} == {"other_files", "empty_classes"}


def test_what_is_not_read_is_named(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets" / "train", 3)
    fill(tmp_path / "pets" / "holdout", 3)
    for name in ("cat/.hidden.png", "cat/._00.png"):
        shutil.copy(folder / "cat" / "00.png", folder / name)
    shutil.copy(folder / "cat" / "00.png", folder / "cat" / "photo.jfif")
    (folder / "cat" / "photo.heic").write_text("x")
    with record_decisions() as log:
        listed = list_images(tmp_path / "pets", by_class=True)
    assert len(listed.names) == 7
    told = {f.check: f.because for f in log}
    assert told.keys() == {"unread_folders", "hidden_images", "other_files"}
    assert told["unread_folders"].endswith(": holdout")
    assert told["hidden_images"].endswith(": cat/.hidden.png")
    assert told["other_files"].endswith(": cat/photo.heic")
    # One picture beside the classes does not make "train" a class.
    shutil.copy(folder / "cat" / "00.png", folder / "stray.jpg")
    with record_decisions() as log:
        assert list_images(tmp_path / "pets", by_class=True).names == listed.names
    assert {f.check: f.because for f in log}["stray_images"].endswith(": stray.jpg")


def test_rows_to_score_are_one_set_of_any_number_of_classes(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        fill(tmp_path / "pets" / part)
    known = RowOptions(classes=("cat", "dog"))
    with pytest.raises(DataError, match=r"(?s)one set of rows.*Name the subfolder: \S+test\.$"):
        load_images(tmp_path / "pets", known)
    shutil.rmtree(tmp_path / "pets" / "test" / "dog")
    assert set(load_images(tmp_path / "pets" / "test", known).column("label").tolist()) == {0}


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_pictures_keep_their_order(mode: str, tmp_path: Path) -> None:
    """By its own values, a picture up to 256 of 16 bits would be black beside one up to 255."""
    means = []
    for top in (255, 256, 4095, 4096, 30000, 65535):
        values = np.linspace(0, top, 64).reshape(8, 8)
        if mode == "F":
            image = Image.fromarray((values / 65535).astype(np.float32))
        else:
            image = Image.fromarray(values.astype({"I;16": np.uint16, "I": np.int32}[mode]))
        assert image.mode == mode
        path = tmp_path / f"{top}.tiff"
        image.save(path)
        read = read_image(path)
        assert ("deep" in read.notes, "dark" in read.notes) == (True, top < 4096 and mode != "F")
        grey = np.asarray(read.image)[..., 0]
        assert np.abs(grey - values / 65535 * 255).max() < 1.01
        means.append(grey.mean())
    assert means == sorted(means)
    Image.fromarray(np.full((8, 8), 200.0, np.float32)).save(tmp_path / "f.tiff")
    with pytest.raises(UnreadableImage, match="floating-point values from 200 to 200"):
        read_image(tmp_path / "f.tiff")
    for values in ([0, 65536], [-1, 100]):
        Image.fromarray(np.array([values], np.int32)).save(tmp_path / "i.tiff")
        with pytest.raises(
            UnreadableImage, match=f"integer values from {values[0]} to {values[1]}"
        ):
            read_image(tmp_path / "i.tiff")


def test_parts_for_each_side_are_recognised(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        fill(tmp_path / "pets" / part)
    sides, reasons = given_splits(tmp_path / "pets")
    assert {side: Path(p).name for side, p in sides.items()} == {"valid": "val", "test": "test"}
    assert [r.what for r in reasons] == ["valid rows", "test rows"]
    assert load_images(tmp_path / "pets").source == str(tmp_path / "pets" / "train")


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    folder = fill(tmp_path / "traffic", 3, ("car", "test", "train"))
    assert given_splits(folder) == ({}, ())
    assert load_images(folder).classes == ("car", "test", "train")


def test_what_is_a_folder_of_pictures(tmp_path: Path) -> None:
    fill(tmp_path / "flat")
    fill(tmp_path / "parts" / "train")
    (tmp_path / "texts" / "a").mkdir(parents=True)
    (tmp_path / "texts" / "a" / "b.txt").write_text("x")
    found = [is_image_folder(tmp_path / name) for name in ("flat", "parts", "texts", "absent")]
    assert found == [True, True, False, False]


def table_of(folder: Path, lines: list[str], header: str = "path,label,user") -> Path:
    (folder / "list.csv").write_text("\n".join([header, *lines]) + "\n", "utf-8")
    return folder / "list.csv"


def lines_of(folder: Path) -> list[str]:
    found = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    return [f"{name},{name.split('/')[0]},u{i % 4}" for i, name in enumerate(found)]


def test_a_table_has_paths_relative_to_its_folder(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets")
    table = load_images(table_of(folder, lines_of(folder)), RowOptions(group="user"))
    assert table.columns.text == ("path",)
    assert table.columns.label == "label"
    assert table.column("group")[:5] == ["u0", "u1", "u2", "u3", "u0"]
    assert all(Path(p).is_file() for p in table.column("path"))
    assert table.column("text") == load_images(folder).column("text")


def test_the_column_of_paths_is_found_by_what_it_holds(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets")
    table = load_images(table_of(folder, lines_of(folder), "where,label,user"))
    assert table.columns.text == ("where",)
    assert "data.text" in [d.what for d in table.decisions]


@pytest.mark.parametrize("name", ["../secret.png", "/somewhere/else.png", "cat/../../x.png"])
def test_a_path_outside_the_tables_folder_is_an_error(tmp_path: Path, name: str) -> None:
    folder = fill(tmp_path / "pets")
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    source = table_of(folder, [*lines_of(folder), f"{name},cat,u1"])
    with pytest.raises(DataError, match="outside the table's folder") as caught:
        load_images(source)
    assert "row 24" in str(caught.value)


def test_an_absent_picture_of_a_table_is_named(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets")
    table = load_images(table_of(folder, [*lines_of(folder), "cat/gone.png,cat,u1"]))
    (finding,) = [f for f in table.findings if f.check == "broken_images"]
    assert finding.rows == (24,)
    assert f"{Path('cat/gone.png')} (no such file)" in finding.because


def test_without_labels_every_picture_is_listed(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets", 3)
    shutil.copy(folder / "cat" / "00.png", folder / "loose.png")
    table = load_images(folder, RowOptions(need_label=False))
    assert len(table) == 7
    assert set(table.column("label").tolist()) == {-1}


def test_a_class_that_a_run_does_not_know_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not one of the classes"):
        load_images(fill(tmp_path / "pets", 3, ("cat", "cow")), RowOptions(classes=CLASSES))


@pytest.mark.parametrize("seed", range(4))
def test_equal_pictures_stay_on_one_side_of_the_division(tmp_path: Path, seed: int) -> None:
    folder = fill(tmp_path / "pets", 20)
    for index in range(6):
        shutil.copy(folder / "cat" / "00.png", folder / "cat" / f"copy{index}.png")
        Image.open(folder / "dog" / "00.png").save(folder / "dog" / f"copy{index}.bmp")
    table = load_images(folder)
    records = split_table(table, seed=seed).records
    side = dict(zip(records["row"].to_pylist(), records["split"].to_pylist(), strict=True))
    by_mark: dict[str, set[str]] = {}
    for row, mark in zip(table.column("row").tolist(), table.column("text"), strict=True):
        by_mark.setdefault(mark, set()).add(side[row])
    assert len(by_mark) == 40
    assert all(len(sides) == 1 for sides in by_mark.values())
