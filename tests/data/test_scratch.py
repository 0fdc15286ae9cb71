"""What lies in the temporary folder, and for how long."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.core.errors import MachineError
from holdfast.core.files import disk_errors
from holdfast.data import scratch
from holdfast.data.scratch import scratch_file
from holdfast.plugins.sandbox.fork import ENVIRONMENT

CODE = """
import sys
from pathlib import Path
from holdfast.data.load import load_table
table = load_table(sys.argv[1])
mapped = Path(table.rows.cache_files[0]["filename"])
assert mapped.is_file() and sys.argv[2] in str(mapped), mapped
assert [p.name for p in mapped.parent.iterdir()] == [mapped.name], "only the rows are kept"
if sys.argv[3] == "fail":
    raise SystemExit(2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["well", "fail"])
def test_nothing_is_left_when_the_process_ends(end: str, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    source = tmp_path / "a.csv"
    source.write_text("text,label\n" + "".join(f"text {n} here,{n % 2}\n" for n in range(12)))
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(source), str(scratch), end],
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (0 if end == "well" else 2), done.stderr
    assert list(scratch.iterdir()) == []
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.csv", "scratch"]


# What a process does that is killed while it uses its temporary folder.
KILLED = """
import os, signal
from holdfast.data.scratch import scratch_file
scratch_file("rows").write_text("x")
print(scratch_file("rows").parent, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A ``TMPDIR`` of its own, for this process too."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    scratch._scratch_folder.cache_clear()
    yield folder
    scratch._scratch_folder.cache_clear()


def test_what_a_killed_process_left_goes_at_the_next_start(base: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED], capture_output=True, text=True, check=False
    )
    left = Path(done.stdout.strip())
    assert left.is_dir(), done.stderr
    mine = scratch_file("rows").parent
    assert [path.name for path in base.iterdir()] == [mine.name]


def test_the_folder_of_a_live_process_stays_and_so_does_a_stranger_s(base: Path) -> None:
    mine = scratch_file("rows").parent
    pid = mine.name.split("-")[1]
    for name in (f"holdfast-{pid}", "holdfast-1-abcdef-elsewhere", "holdfast-runs", "else"):
        (base / name).mkdir()
    (base / f"{mine.name}link").symlink_to(base / "else")
    (base / f"{mine.name}file").write_text("x")
    (base / "else" / "mine.txt").write_text("mine")
    before = sorted(path.name for path in base.iterdir())
    scratch._scratch_folder.cache_clear()
    other = scratch_file("rows").parent
    assert other != mine
    assert sorted(path.name for path in base.iterdir()) == sorted([*before, other.name])
    assert (base / "else" / "mine.txt").read_text() == "mine"


# A process that is killed while one that it forked goes on, until its input ends.
OUTLIVED = """
import os, signal, sys
from holdfast.data.scratch import scratch_file
from holdfast.plugins.sandbox.fork import fork
folder = scratch_file("rows").parent
if fork() == 0:
    print(folder, flush=True)
    sys.stdin.read()
    os._exit(0)
sys.stdin.close()
signal.pause()
"""


def test_a_child_holds_its_parent_s_folder_no_longer_than_the_parent(base: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", OUTLIVED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    )
    assert parent.stdout is not None
    try:
        folder = Path(parent.stdout.readline().strip())
        assert folder.is_dir()
        mine = scratch_file("rows").parent
        assert folder.is_dir(), "its process lives"
        parent.kill()
        parent.wait()
        scratch._scratch_folder.cache_clear()
        assert scratch_file("rows").parent != mine
        assert not folder.exists()
    finally:
        parent.kill()
        # The child's input ends, and so does it; then nobody holds its output.
        parent.communicate()


@pytest.mark.parametrize("named", ["missing", "file", "nul\0", "/proc"])
def test_a_tmpdir_that_cannot_be_used_is_named_and_no_other_is_taken(
    base: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    (base / "file").write_text("x")
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    folder = str(base / named)
    # The system takes no NUL in a variable, so the program's own view is set.
    monkeypatch.setattr(os, "environ", {**os.environ, "TMPDIR": folder})
    with pytest.raises(MachineError, match=r"TMPDIR=[\s\S]*cannot hold temporary files") as caught:
        scratch_file("rows")
    assert "Set TMPDIR" in caught.value.remedy


def test_a_full_tmpdir_is_named_when_rows_are_written(base: Path) -> None:
    with pytest.raises(MachineError, match="is full") as caught, disk_errors(scratch_file("raw")):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "TMPDIR" in caught.value.remedy
    with pytest.raises(MachineError) as caught, disk_errors(base / "holdfast-runs" / "x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "TMPDIR" not in caught.value.remedy
