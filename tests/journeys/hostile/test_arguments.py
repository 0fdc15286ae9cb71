"""Command lines and surroundings of nobody: arguments that are none, streams that are closed,
no home, no folder, a disk that is full. Exit 2 with a sentence, never a defect or a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.main import as_input_error

LOG = "epoch,loss,val_loss\n" + "".join(f"{i},{2 - i / 10},{2.1 - i / 11}\n" for i in range(12))
ROWS = "text,label\n" + "".join(f"words {i},{'ab'[i % 2]}\n" for i in range(40))
STRANGE = [
    "a\0b",
    "\x1b[2Jx",
    "\x1b]0;title\x07",
    "x" * 5000,
    "\udcff",
    "a\nb",
    "\u202egnp.csv",
    "%s%n",
    "~nobody/x",
    "/dev/null",
    "-",
    "--",
    "''",
    "{}",
    "é" * 300,
]


def _clean(text: str) -> None:
    for mark in ("Traceback", "a defect", "\x1b", "\x07", "\0"):
        assert mark not in text, text[:300]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "rows.csv").write_text(ROWS)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("value", STRANGE, ids=lambda value: ascii(value)[:20])
def test_no_argument_is_a_defect(files: Path, holdfast: Callable[..., Any], value: str) -> None:
    for line in (
        [value],
        ["train", value, "--dry-run"],
        ["diagnose", value],
        ["report", value],
        ["evaluate", value, "rows.csv"],
        ["predict", value, "rows.csv"],
        ["diagnose", f"--{value}"],
        ["train", "rows.csv", "--task", value, "--dry-run"],
        ["train", "rows.csv", "--seed", value],
        ["train", "rows.csv", "--set", value],
        ["diagnose", "log.csv", "--set", f"train={value}"],
        ["train", "--fail-on", value, value],
    ):
        done = holdfast(*line)
        assert done.code == 2, (line[:3], done.code, done.err[:300])
        assert len(done.err) < 9000
        _clean(done.err)


@pytest.mark.parametrize("option", ["--text", "--label", "--group", "--test"])
def test_a_column_without_a_name(files: Path, holdfast: Callable[..., Any], option: str) -> None:
    done = holdfast("train", "rows.csv", option, "", "--dry-run")
    assert done.code == 2
    _clean(done.err)


@pytest.mark.parametrize("columns", ["0", "1", "7", "-5", "100000000", "x", ""])
def test_any_width(
    files: Path, holdfast: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    done = holdfast("diagnose", "log.csv")
    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= 110
    _clean(done.err)
    assert holdfast("train", "absent.csv", "--dry-run").code == 2


def script(text: str, where: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A shell's line in a process of its own, ``holdfast`` the installed one."""
    path = f"{Path(os.sys.executable).parent}:{os.environ['PATH']}"  # type: ignore[attr-defined]
    return subprocess.run(
        ["bash", "-c", text],
        cwd=where,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PATH": path} | env,
        errors="surrogateescape",
    )


@pytest.mark.slow
def test_surroundings_of_nobody(files: Path) -> None:
    """Each line in a shell of its own, one after the other, for a process is half a second."""
    done = script(
        "(holdfast diagnose log.csv <&- >&- 2>&-) ; echo all $? >> told;"
        "(holdfast diagnose log.csv >/dev/full) ; echo full $? >> told;"
        "(unset HOME; LANG=C LC_ALL=C holdfast diagnose log.csv > c.txt) ; echo c $? >> told;"
        "(mkdir gone; cd gone; rmdir ../gone; holdfast diagnose x) ; echo cwd $? >> told;"
        "(holdfast diagnose $'\\xff.csv') ; echo byte $? >> told;",
        files,
    )
    told = dict(line.split() for line in (files / "told").read_text().splitlines())
    assert told == {"all": "0", "full": "2", "c": "0", "cwd": "2", "byte": "2"}
    _clean(done.stderr)
    assert "no space left on device" in done.stderr
    assert "the current folder: no longer exists" in done.stderr
    assert "are not UTF-8" in done.stderr


@pytest.mark.slow
def test_json_is_json_in_every_encoding(files: Path) -> None:
    import json

    (files / "é.jsonl").write_text('{"epoch": 1, "loss é": 1, "val_loss é": 1}\n')
    done = script("PYTHONIOENCODING=ascii holdfast diagnose é.jsonl --json", files)
    assert json.loads(done.stdout)["series"]["train"] == "loss é"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionError(errno.EACCES, "x", "a.csv"), 2),
        (OSError(errno.ENAMETOOLONG, "x", "a"), 2),
        (OSError(errno.ENOSPC, "x"), 2),
        (MemoryError(), 2),
        (OSError(errno.EMFILE, "x"), 2),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 2),
        (OSError("of a library, about nothing"), None),
        (OSError(errno.ENOENT, "x"), None),
        (ValueError("x"), None),
        (RuntimeError("x"), None),
        (RecursionError(), None),
        (KeyError(1), None),
    ],
    ids=repr,
)
def test_what_can_be_nobody_else_s_fault(error: Exception, code: int | None) -> None:
    found = as_input_error(error)
    assert (found.exit_code if found else None) == code
    if error.args[-1:] == ("a.csv",):
        assert "a.csv" in str(found)


def test_a_defect_is_still_a_defect(
    holdfast: Callable[..., Any], files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("\x1b[2J of our own")

    monkeypatch.setattr("holdfast.plugins.logs.reader.read_verdict", broken)
    done = holdfast("diagnose", "log.csv")
    assert done.code == 1
    assert "a bug in Holdfast" in done.err
    assert "\x1b" not in done.err


@pytest.mark.parametrize("name", ["text", "csv", "json", "imagefolder", "webdataset"])
def test_a_kind_of_file_is_no_data_set(
    files: Path, holdfast: Callable[..., Any], name: str
) -> None:
    """To ``datasets`` it would be every such file of the current folder."""
    done = holdfast("train", name, "--text", "text", "--label", "label", "--dry-run")
    assert done.code == 2
    assert "name of a file format" in done.err


def test_predict_looks_for_the_run_before_it_reads_what_is_piped_in(holdfast: Any) -> None:
    class Unread:
        @property
        def buffer(self) -> Any:
            raise AssertionError("standard input was read")

    before, sys.stdin = sys.stdin, Unread()  # type: ignore[assignment]
    try:
        done = holdfast("predict", "nowhere", "-")
    finally:
        sys.stdin = before
    assert done.code == 2
    assert "nowhere" in done.err


@pytest.mark.slow
def test_surroundings_of_accelerate_that_say_nothing_are_told(
    shell: Any, marked_csv: Path, sets: list[str], tmp_path: Path
) -> None:
    done = shell("train", marked_csv, *sets, "--dry-run", cwd=tmp_path, ACCELERATE_USE_CPU="maybe")
    assert done.code == 2, done.err
    assert "ACCELERATE_*" in done.err
