"""Programs in, results out: the side of Holdfast, which never runs a line of them itself."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from holdfast.core.errors import MachineError

CHILD = Path(__file__).with_name("child.py")
START_SECONDS = 120.0
GRACE_SECONDS = 5.0
ENVIRONMENT = {"LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program gave: its ``result`` in plain values, or the ``error`` that ended it."""

    result: Any = None
    error: str | None = None


def run_programs(
    programs: Sequence[tuple[str, str]], language: str, *, seconds: float, memory_mb: int
) -> list[Outcome]:
    """Run each (code, tables as JSON) alone, ``language`` ``sql`` or ``pandas``, [n].

    A program has ``seconds`` of time and ``memory_mb`` of memory, no network, no file to write, no
    process to start, an empty folder and an empty environment. One that asks for more is ended and
    has an error; the next is not touched.

    Raises ``MachineError`` where the system cannot give such a process.
    """
    check_machine(language)
    outcomes: list[Outcome] = []
    while len(outcomes) < len(programs):
        with _process(language, seconds, memory_mb) as process:
            outcomes += _answers(process, programs[len(outcomes) :], seconds)
    return outcomes


def isolation(language: str) -> str:
    """What keeps a program from the network on this machine."""
    check_machine(language)
    with _process(language, 1.0, 64) as process:
        return process.network


def check_machine(language: str) -> None:
    """Refuse a system without forks and limits, and pandas where it is absent."""
    if not sys.platform.startswith(("linux", "darwin")):
        raise MachineError(
            "generate.execute", "needs processes with limits, which this system has not",
            sys.platform, "Leave it out, or run on Linux.",
        )  # fmt: skip
    if language == "pandas" and importlib.util.find_spec("pandas") is None:
        raise MachineError(
            "generate.execute", "needs the package pandas", None, "pip install 'holdfast[code]'"
        )


@dataclass(slots=True)
class _Process:
    """A running child, and what it says of its network."""

    inner: subprocess.Popen[bytes]
    network: str


@contextlib.contextmanager
def _process(language: str, seconds: float, memory_mb: int) -> Iterator[_Process]:
    with tempfile.TemporaryDirectory(prefix="holdfast-code-") as empty:
        inner = subprocess.Popen(
            [sys.executable, "-I", "-B", str(CHILD)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=empty, env=ENVIRONMENT,
            start_new_session=True,
        )  # fmt: skip
        try:
            settings = {"language": language, "seconds": seconds, "memory_mb": memory_mb}
            told = _ask(inner, settings, START_SECONDS)
            if told is None:
                raise MachineError(
                    "generate.execute", "could not start its process", language,
                    "Leave generate.execute out.",
                )  # fmt: skip
            yield _Process(inner, str(told["network"]))
        finally:
            inner.kill()
            for stream in (inner.stdin, inner.stdout):
                with contextlib.suppress(OSError):
                    _open(stream).close()
            inner.wait()


def _answers(
    process: _Process, programs: Sequence[tuple[str, str]], seconds: float
) -> list[Outcome]:
    """Outcomes up to the first program that takes the whole process with it, that one too."""
    outcomes: list[Outcome] = []
    for code, tables in programs:
        told = _ask(process.inner, {"code": code, "tables": tables}, seconds + GRACE_SECONDS)
        if told is None:
            return [*outcomes, Outcome(error="the process that runs code ended")]
        outcomes.append(Outcome(told.get("result"), told.get("error")))
    return outcomes


def _ask(
    process: subprocess.Popen[bytes], question: dict[str, Any], seconds: float
) -> dict[str, Any] | None:
    """The answer's object; ``None`` where the process is dead or too slow."""
    try:
        _open(process.stdin).write(json.dumps(question).encode() + b"\n")
        _open(process.stdin).flush()
    except OSError:
        return None
    line = _line(_open(process.stdout), time.monotonic() + seconds)
    try:
        held = json.loads(line)
    except ValueError:
        return None
    return held if isinstance(held, dict) else None


def _line(stream: IO[bytes], deadline: float) -> bytes:
    """One line, or what came of it by the deadline."""
    held = b""
    while not held.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([stream], [], [], left)[0]:
            return held
        part = stream.read1(1 << 16)  # type: ignore[attr-defined]
        if not part:
            return held
        held += part
    return held


def _open(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream
