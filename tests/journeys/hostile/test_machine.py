"""A terminal that is closed, a machine that gives nothing: saved, or told in one message."""

from __future__ import annotations

import os
import pty
import resource
import select
import subprocess
import sys
import time
from collections.abc import Callable
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


def in_a_terminal_that_closes(command: list[str], folder: Path, when: bytes) -> int:
    """Run the command in a terminal, close it once ``when`` is seen, and wait for its end."""
    import fcntl
    import termios

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    seen, end = b"", time.monotonic() + 60
    while when not in seen and time.monotonic() < end:
        if select.select([ours], [], [], 0.2)[0]:
            seen += os.read(ours, 65536)
    assert when in seen, seen
    os.close(ours)
    return process.wait(timeout=30)


def test_a_terminal_that_is_closed_saves_the_run(
    marked_csv: Path, sets: list[str], tmp_path: Path
) -> None:
    command = [
        str(HOLDFAST),
        "train",
        str(marked_csv),
        "--out",
        "run",
        *sets,
        "--set",
        "train.epochs=3000",
        "--set",
        "control.policy=off",
        "--set",
        "methods.contrast=false",
    ]
    assert in_a_terminal_that_closes(command, tmp_path, b"rows/s") == 130
    run = tmp_path / "run"
    assert list((run / "checkpoints").glob("step-*.pt"))
    assert not (run / "result.json").exists()
    assert not (run / ".lock").exists()


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

    def refuse(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(pipeline, "load_and_divide", refuse)
    done = holdfast("train", marked_csv, "--out", "run")
    one_message(done.code, done.err, "no further thread")
    assert list(tmp_path.iterdir()) == []


def limited(megabytes: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))


@pytest.mark.parametrize("megabytes", [60, 400])
def test_ulimit_is_named(marked_csv: Path, tmp_path: Path, megabytes: int) -> None:
    done = subprocess.run(
        [HOLDFAST, "train", marked_csv, "--out", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limited(megabytes),
    )
    one_message(done.returncode, done.stderr, "ulimit -v")
    assert list(tmp_path.iterdir()) == []
