"""What may be written where the user says, and how it comes to lie there."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.errors import MachineError, RunError
from holdfast.core.outputs import check_output, open_output


def put(path: Path, text: str = "new", *inputs: Path, force: bool = False) -> None:
    with open_output(check_output(path, inputs, force=force)) as stream:
        stream.write(text.encode())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.csv").write_text("old")
    return tmp_path


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_of_the_umask(here: Path, mask: int) -> None:
    with umask(mask):
        put(Path("new.csv"))
    assert Path("new.csv").read_text() == "new"
    assert stat.S_IMODE(Path("new.csv").stat().st_mode) == 0o666 & ~mask
    assert names(here) == ["new.csv", "old.csv"]


@pytest.mark.parametrize("mode", [0o640, 0o600, 0o755])
def test_a_replaced_file_keeps_its_mode_and_its_owner(here: Path, mode: int) -> None:
    Path("old.csv").chmod(mode)
    if os.geteuid() == 0:
        os.chown("old.csv", 65534, 65534)
    before = Path("old.csv").stat()
    put(Path("old.csv"), force=True)
    after = Path("old.csv").stat()
    assert Path("old.csv").read_text() == "new"
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )


def test_another_name_of_a_replaced_file_keeps_what_it_held(here: Path) -> None:
    os.link("old.csv", "copy.csv")
    put(Path("old.csv"), force=True)
    assert (Path("old.csv").read_text(), Path("copy.csv").read_text()) == ("new", "old")


SPELLINGS = {
    "itself": "old.csv",
    "dot": "./old.csv",
    "up": "sub/../old.csv",
    "absolute": "{here}/old.csv",
    "link": "link.csv",
    "link to a link": "link2.csv",
    "hard link": "hard.csv",
    "through a linked folder": "folder/old.csv",
}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("spelled", SPELLINGS.values(), ids=SPELLINGS)
def test_what_is_read_is_never_written_over(here: Path, spelled: str, force: bool) -> None:
    (here / "sub").mkdir()
    Path("link.csv").symlink_to("old.csv")
    Path("link2.csv").symlink_to(here / "link.csv")
    os.link("old.csv", "hard.csv")
    Path("folder").symlink_to(".")
    with pytest.raises(RunError, match="is the input"):
        put(Path(spelled.format(here=here)), "new", Path("old.csv"), force=force)
    with pytest.raises(RunError, match="is the input"):
        put(Path("old.csv"), "new", Path(spelled.format(here=here)), force=force)
    assert Path("old.csv").read_text() == "old"


def test_a_folder_that_is_read_holds_inputs_alone(here: Path) -> None:
    (here / "rows").mkdir()
    Path("rows/a.csv").write_text("old")
    Path("in.csv").symlink_to("rows/a.csv")
    for name in ("rows/a.csv", "in.csv"):
        with pytest.raises(RunError, match="is the input rows"):
            put(Path(name), "new", Path("rows"), force=True)
    put(Path("rows/new.csv"), "new", Path("rows"))
    assert Path("rows/a.csv").read_text() == "old"


def test_an_input_that_is_a_descriptor_is_known(here: Path) -> None:
    opened = os.open("old.csv", os.O_RDONLY)
    try:
        with pytest.raises(RunError, match="is the input"):
            check_output(Path("old.csv"), [opened], force=True)
    finally:
        os.close(opened)


def test_what_exists_is_replaced_with_force_alone(here: Path) -> None:
    with pytest.raises(RunError, match=r"exists already[\s\S]*--force"):
        put(Path("old.csv"))
    assert Path("old.csv").read_text() == "old"
    put(Path("old.csv"), force=True)
    assert Path("old.csv").read_text() == "new"


def test_a_link_stays_and_what_it_points_to_is_written(here: Path) -> None:
    (here / "far").mkdir()
    Path("far/old.csv").write_text("old")
    Path("link.csv").symlink_to("far/old.csv")
    with pytest.raises(RunError, match="exists already"):
        put(Path("link.csv"))
    put(Path("link.csv"), force=True)
    assert Path("link.csv").readlink() == Path("far/old.csv")
    assert Path("far/old.csv").read_text() == "new"


def test_a_link_that_leads_nowhere_or_in_a_loop_is_refused(here: Path) -> None:
    Path("nowhere.csv").symlink_to("far.csv")
    Path("a.csv").symlink_to("b.csv")
    Path("b.csv").symlink_to("a.csv")
    for force in (False, True):
        with pytest.raises(RunError, match=r"is a link to far\.csv, which does not exist"):
            put(Path("nowhere.csv"), force=force)
        with pytest.raises(RunError, match="circular link"):
            put(Path("a.csv"), force=force)
    assert Path("nowhere.csv").is_symlink()
    assert not Path("far.csv").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sub", "is a folder"),
        (".", "is a folder"),
        ("..", "is a folder"),
        ("", "is a folder"),
        ("away/new.csv", "a folder that does not exist"),
        ("old.csv/new.csv", "does not exist"),
        ("socket.csv", "is a socket"),
        ("a\0b.csv", "a NUL character"),
        ("x" * 5000, "too long"),
        ("x" * 256 + ".csv", "too long"),
        ("x/" * 3000 + "y", "too long"),
    ],
)
def test_what_is_no_file_is_refused(here: Path, name: str, said: str) -> None:
    (here / "sub").mkdir()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as made:
        made.bind("socket.csv")
        before = names(here)
        for force in (False, True):
            with pytest.raises((RunError, MachineError), match=said):
                put(Path(name), force=force)
        assert names(here) == before


def test_the_longest_name_is_no_trouble(here: Path) -> None:
    name = "x" * 251 + ".csv"
    put(Path(name))
    assert Path(name).read_text() == "new"


def test_a_device_is_written_through_and_stays(here: Path) -> None:
    Path("null.csv").symlink_to("/dev/null")
    for path in ("/dev/null", "null.csv"):
        put(Path(path))
    assert Path("null.csv").is_symlink()
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_device_that_takes_nothing_is_told(here: Path) -> None:
    with pytest.raises(MachineError, match="is full"):
        put(Path("/dev/full"))
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_a_pipe_is_written_through(here: Path) -> None:
    os.mkfifo("pipe.csv")
    heard: list[str] = []
    reader = threading.Thread(target=lambda: heard.append(Path("pipe.csv").read_text()))
    reader.start()
    put(Path("pipe.csv"), "new" * 100_000)
    reader.join()
    assert heard == ["new" * 100_000]
    assert stat.S_ISFIFO(Path("pipe.csv").stat().st_mode)


def test_a_pipe_whose_reader_goes_is_told(here: Path) -> None:
    os.mkfifo("pipe.csv")
    opened = threading.Event()

    def read() -> None:
        with Path("pipe.csv").open("rb"):
            opened.set()

    threading.Thread(target=read).start()
    with pytest.raises(MachineError, match="its reader has gone"):
        put(Path("pipe.csv"), "new" * 1_000_000)
    assert opened.is_set()


def test_an_open_descriptor_is_written_on_from_where_it_stands(here: Path) -> None:
    with Path("all.txt").open("wb") as file:
        file.write(b"before ")
        file.flush()
        put(Path(f"/dev/fd/{file.fileno()}"))
        put(Path(f"/proc/self/fd/{file.fileno()}"), " and again")
        file.write(b" after")
    assert Path("all.txt").read_text() == "before new and again after"
    with Path("old.csv").open("rb") as file, pytest.raises(RunError, match="for reading only"):
        put(Path(f"/dev/fd/{file.fileno()}"), force=True)
    with pytest.raises(RunError, match="is not open"):
        put(Path("/dev/fd/987"))


@pytest.mark.parametrize("force", [False, True])
def test_a_failure_on_the_way_leaves_everything_as_it_was(here: Path, force: bool) -> None:
    def fail() -> None:
        with open_output(
            check_output(Path("old.csv" if force else "new.csv"), force=force)
        ) as file:
            file.write(b"half")
            raise ValueError("later")

    with pytest.raises(ValueError, match="later"):
        fail()
    assert names(here) == ["old.csv"]
    assert Path("old.csv").read_text() == "old"


def test_a_file_that_appears_meanwhile_is_not_lost(here: Path) -> None:
    def two() -> None:
        with open_output(check_output(Path("new.csv"))) as file:
            file.write(b"mine")
            Path("new.csv").write_text("theirs")

    with pytest.raises(RunError, match="meanwhile"):
        two()
    assert Path("new.csv").read_text() == "theirs"
    assert names(here) == ["new.csv", "old.csv"]


def test_a_full_disk_is_told_before_anything_is_done(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(MachineError, match="is full"):
        check_output(Path("new.csv"))
    monkeypatch.undo()
    assert names(here) == ["old.csv"]


def test_where_there_are_no_hard_links_a_new_file_is_written_too(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    put(Path("new.csv"))
    assert Path("new.csv").read_text() == "new"
    assert names(here) == ["new.csv", "old.csv"]


def test_a_folder_that_takes_no_file_is_told_before_anything_is_done(as_nobody: Any) -> None:
    def every(folder: Path) -> dict[str, str]:
        said = {}
        for name in ("closed/new.csv", "shut/new.csv", "closed/old.csv", "sticky/theirs.csv"):
            try:
                check_output(folder / name, force=True)
            except (RunError, MachineError) as error:
                said[name] = error.rule
        return said

    def prepare(folder: Path) -> None:
        for name, mode in (("closed", 0o555), ("shut", 0o000), ("sticky", 0o1777)):
            (folder / name).mkdir()
            (folder / name / "old.csv").write_text("old")
            (folder / name / "theirs.csv").write_text("theirs")
            (folder / name).chmod(mode)

    assert as_nobody(prepare, every) == {
        "closed/new.csv": "could not be written: permission denied",
        "shut/new.csv": "could not be written: permission denied",
        "closed/old.csv": "could not be written: permission denied",
        "sticky/theirs.csv": "belongs to another user",
    }
