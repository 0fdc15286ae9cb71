"""One holder at a time, whatever became of the last one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.core import lock
from holdfast.core.decisions import decisions_to
from holdfast.core.errors import MachineError, RunError
from holdfast.core.lock import LOCK_FILE, locked, refuse_locked
from holdfast.plugins.sandbox.fork import ENVIRONMENT

# A process that holds the folder until it is killed, or its input ends. With ``forks`` a child of
# it goes on; with ``leaves`` a child leaves the block first.
HOLDER = """
import os, sys
from pathlib import Path
from holdfast.core.lock import locked
from holdfast.plugins.sandbox.fork import fork
way = sys.argv[2]
with locked(Path(sys.argv[1])):
    child = way != "holds" and fork() == 0
    if way == "holds" or child:
        print("ready", flush=True)
    if way == "leaves" and not child:
        os.wait()
        print("left", flush=True)
    # Of one that forks, its child alone reads.
    if not child and way == "forks":
        os.wait()
    elif not (child and way == "leaves"):
        sys.stdin.read()
"""


@contextlib.contextmanager
def holder(folder: Path, way: str = "holds") -> Iterator[subprocess.Popen[str]]:
    """A process that holds ``folder``, which is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), way],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        # What it forked ends with its input, and then nobody holds its output.
        process.communicate()


def test_a_second_holder_is_told_who_holds_it(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        for ask in (lambda: locked(tmp_path).__enter__(), lambda: refuse_locked(tmp_path)):
            told = rf"written by process {process.pid} since 20"
            with pytest.raises(RunError, match=told) as caught:
                ask()
            assert caught.value.exit_code == 2
        assert json.loads((tmp_path / LOCK_FILE).read_text())["host"] == socket.gethostname()


def test_a_killed_holder_holds_nobody_off_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with holder(tmp_path):
        pass
    assert (tmp_path / LOCK_FILE).exists()
    refuse_locked(tmp_path)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_forked_helper_that_outlives_the_holder_holds_nothing(tmp_path: Path) -> None:
    with holder(tmp_path, "forks") as process:
        process.kill()
        process.wait()
        with locked(tmp_path):
            pass


def test_a_forked_child_that_leaves_the_block_lets_nothing_go(tmp_path: Path) -> None:
    with holder(tmp_path, "leaves") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "left\n"
        with pytest.raises(RunError, match=f"by process {process.pid} "), locked(tmp_path):
            pass
        process.communicate()
        assert not (tmp_path / LOCK_FILE).exists()


def test_two_threads_are_two(tmp_path: Path) -> None:
    said: list[str] = []

    def second() -> None:
        try:
            with locked(tmp_path):
                said.append("held")
        except RunError as error:
            said.append(error.rule)

    with locked(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert said == ["is being written by this process already, in another thread"]
    second()
    assert said[1:] == ["held"]


def test_of_many_at_once_one_holds_at_any_time(tmp_path: Path) -> None:
    """Threads that take and let go at random: files come and go under each other's hands."""
    inside, most, held = 0, [0], [0]
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside
        for _ in range(60):
            try:
                with locked(tmp_path):
                    with guard:
                        inside += 1
                        most.append(inside)
                    time.sleep(0.0005)
                    held.append(1)
                    with guard:
                        inside -= 1
            except RunError:
                time.sleep(0.0002)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert sum(held) > 10
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"pid": 1}',
        '{"pid": "x", "host": 1, "since": 2}',
        "[" * 900,
        '{"pid": 7, "host": "\\u001b[31mx", "since": "2026-01-01T00:00:00"}',
        "\xff",
    ],
)
def test_a_holder_that_says_nothing_or_nonsense_is_told_without_it(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.05)
    with (tmp_path / LOCK_FILE).open("w", encoding="latin-1") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(text)
        file.flush()
        with pytest.raises(RunError, match=r"another process|process 7 on \\x1b\[31mx"):
            refuse_locked(tmp_path)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_something_else_in_its_place_is_refused(tmp_path: Path, kind: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    made = {
        "link": lambda: (run / LOCK_FILE).symlink_to(tmp_path / "theirs"),
        "pipe": lambda: os.mkfifo(run / LOCK_FILE),
        "folder": (run / LOCK_FILE).mkdir,
    }
    made[kind]()
    with pytest.raises((RunError, MachineError)), locked(run):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_where_there_are_no_locks_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    said: list[Any] = []
    with decisions_to(said.append), locked(tmp_path):
        refuse_locked(tmp_path)
    assert "one process at a time" in said[0].because
    assert said[0].prominent, "train prints only these"
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_lock_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lock.os, "pwrite", full)
    with pytest.raises(MachineError, match="is full"), locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
