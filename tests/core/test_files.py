"""Files: whole or not at all, and the system's refusals in one sentence."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from holdfast.core.errors import MachineError, RunError
from holdfast.core.files import (
    disk_errors,
    dump_json,
    replace_folder,
    write_atomically,
    write_json,
    write_text,
)


class Stop(BaseException):
    pass


def test_a_file_is_written_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "größer\n")
    assert (tmp_path / "a.txt").read_bytes() == "größer\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError("x"), Stop(), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def half(beside: Path) -> None:
        beside.write_text("ne")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for name, content in (("beside", "new"), ("model", "old")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{content}.txt").write_text(content)
    replace_folder(tmp_path / "beside", tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["new.txt"]


FULL = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG]
FORBIDDEN = [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG]


@pytest.mark.parametrize("number", FULL + FORBIDDEN)
def test_the_system_s_refusals_become_one_message(tmp_path: Path, number: int) -> None:
    with pytest.raises(MachineError) as caught, disk_errors(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path / "a") in caught.value.what
    assert ("--resume" if number in FULL else "--out") in caught.value.remedy
    assert caught.value.exit_code == 2


def test_safetensors_says_its_number_in_words(tmp_path: Path) -> None:
    said = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(MachineError, match="is full"), disk_errors(tmp_path):
        raise RuntimeError(said)


@pytest.mark.parametrize("error", [OSError(errno.EINVAL, "wrong"), ValueError("no"), OSError()])
def test_other_errors_stay_themselves(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)), disk_errors(tmp_path):
        raise error


def test_the_translated_message_is_not_translated_again(tmp_path: Path) -> None:
    with (
        pytest.raises(MachineError, match="inner"),
        disk_errors(tmp_path / "outer"),
        disk_errors(tmp_path / "inner"),
    ):
        raise OSError(errno.ENOSPC, "full")


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full, a full disk")
def test_a_really_full_disk(tmp_path: Path) -> None:
    def write(beside: Path) -> None:
        beside.symlink_to("/dev/full")
        beside.write_text("y" * 100_000, "utf-8")

    with pytest.raises(MachineError, match="is full"):
        write_atomically(tmp_path / "a.json", write)
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_the_place_of_a_file_or_of_what_stands_beside_it_is_not_followed(
    tmp_path: Path,
) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("theirs")
    (tmp_path / ".a.json.partial").symlink_to(theirs)
    write_json(tmp_path / "a.json", 1)
    assert not (tmp_path / "a.json").is_symlink()
    (tmp_path / "b.json").symlink_to(theirs)
    with pytest.raises(RunError, match=r"is a link \(to .*theirs\)"):
        write_json(tmp_path / "b.json", 1)
    assert theirs.read_text() == "theirs"
    assert (tmp_path / "b.json").is_symlink()


def test_a_link_in_the_place_of_a_folder_is_not_replaced(tmp_path: Path) -> None:
    for name in ("beside", "theirs"):
        (tmp_path / name).mkdir()
    (tmp_path / "model").symlink_to("theirs")
    with pytest.raises(RunError, match="is a link"):
        replace_folder(tmp_path / "beside", tmp_path / "model")
    assert (tmp_path / "model").is_symlink()


def test_a_folder_that_went_meanwhile_is_told(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="no longer there"):
        write_json(tmp_path / "gone" / "a.json", 1)


def test_json_has_no_nan_and_keeps_the_order() -> None:
    value = {
        "b": float("nan"),
        "a": np.float64("inf"),
        "c": np.arange(2),
        "d": Path("x"),
        "e": (1, {"f": np.bool_(True)}),
        "ü": "ü",
    }
    text = dump_json(value)
    assert json.loads(text) == {
        "b": None,
        "a": None,
        "c": [0, 1],
        "d": "x",
        "e": [1, {"f": True}],
        "ü": "ü",
    }
    assert list(json.loads(text)) == ["b", "a", "c", "d", "e", "ü"]
    assert "ü" in text
