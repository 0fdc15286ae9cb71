"""A machine that gives nothing, a stream that nobody reads: told in one message, or passed over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HOLDFAST = Path(sys.executable).parent / "holdfast"


def one_message(code: int, err: str, said: str) -> None:
    assert code == 2, err
    assert "Traceback" not in err
    assert "a defect" not in err
    assert "holdfast: " in err
    assert said in err


@pytest.mark.parametrize(
    ("given", "environment"),
    [
        (("--set", "train.threads=100000"), {}),
        ((), {"OMP_NUM_THREADS": "100000"}),
        ((), {"MKL_NUM_THREADS": "99999"}),
    ],
)
def test_more_threads_than_can_work_are_refused(
    holdfast: Any,
    marked_csv: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: tuple[str, ...],
    environment: dict[str, str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = holdfast("train", marked_csv, "--out", "run", *given)
    one_message(done.code, done.err, "asks for more threads than this machine can use")
    assert list(tmp_path.iterdir()) == []


def test_a_thread_that_the_system_does_not_give_is_told(
    holdfast: Any, marked_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import holdfast.pipeline.main as pipeline

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(pipeline, "load_and_divide", refuse)
    done = holdfast("train", marked_csv, "--out", "run")
    one_message(done.code, done.err, "no further thread")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("megabytes", [60, 120, 500])
def test_ulimit_is_named(marked_csv: Path, tmp_path: Path, megabytes: int) -> None:
    limited = f'ulimit -v {megabytes << 10}; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", limited, "sh", HOLDFAST, "train", marked_csv, "--out", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    one_message(done.returncode, done.stderr, "ulimit -v")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_whose_words_nobody_reads_ends_well(
    holdfast: Any,
    marked_csv: Path,
    sets: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As under ``2> >(head -1)``, or when a terminal goes without a signal."""
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "w", buffering=1) as unread:
        monkeypatch.setattr(sys, "stderr", unread)
        done = holdfast("train", marked_csv, "--out", "run", "--verbose", *sets)
    assert done.code == 0
    assert "Verdict" in done.out
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize("named", ["missing", "file", "/proc"])
def test_a_tmpdir_that_cannot_be_used_is_named(
    holdfast: Any, marked_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    import tempfile

    from holdfast.data import scratch

    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("TMPDIR", str(tmp_path / named))
    monkeypatch.setattr(tempfile, "tempdir", None)
    scratch._scratch_folder.cache_clear()
    try:
        done = holdfast("train", marked_csv, "--out", "run")
    finally:
        scratch._scratch_folder.cache_clear()
    one_message(done.code, done.err, "TMPDIR=")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_model_that_cannot_be_read_for_lack_of_memory_is_not_called_damaged(
    holdfast: Any, marked_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import holdfast.pipeline.main as pipeline
    from holdfast.core.errors import ModelError

    def refuse(*_: Any, **__: Any) -> None:
        told = "unable to mmap 90868376 bytes from file: Cannot allocate memory (12)"
        raise ModelError("embedded", "has weights that cannot be read", told, "Fetch it again.")

    monkeypatch.setattr(pipeline, "load_and_divide", refuse)
    done = holdfast("train", marked_csv, "--out", "run")
    one_message(done.code, done.err, "was given no more memory")
    assert "Fetch" not in done.err


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WORLD_SIZE": "x"}, "WORLD_SIZE: is not a whole number"),
        ({"RANK": "-1"}, "RANK: is not a whole number"),
        # It would be taken for a second process: nothing would be locked.
        ({"RANK": "1"}, "do not give the number of a process among several (found: '1 of 1')"),
        ({"WORLD_SIZE": "0"}, "number of a process among several"),
        ({"WORLD_SIZE": "3"}, "is set without MASTER_ADDR and MASTER_PORT"),
    ],
)
def test_processes_that_nobody_launched_are_refused(
    holdfast: Any,
    marked_csv: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    said: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = holdfast("train", marked_csv, "--out", "run")
    one_message(done.code, done.err, said)
    assert list(tmp_path.iterdir()) == []
