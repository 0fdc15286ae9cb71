"""Runs programs in a separate process and returns their results; Holdfast's own process never
executes any of their code.
"""

from __future__ import annotations

import contextlib
import functools
import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from holdfast.core.errors import MachineError
from holdfast.core.packages import need_packages
from holdfast.plugins.sandbox.fence import NEEDED
from holdfast.plugins.sandbox.fork import ENVIRONMENT as ONE_THREAD
from holdfast.plugins.sandbox.messages import MOST_BYTES, memory_bytes, parse

CHILD, FENCE = Path(__file__).with_name("child.py"), Path(__file__).with_name("fence.py")
START_SECONDS = 120.0
# The child ends a program by itself; this is for a program that stopped the child too.
GRACE_SECONDS = 5.0
# The maximum size of a process's output, including the number of its reply.
MAX_LINE_BYTES = MOST_BYTES + 1000
# The results of one call are in memory at once: the bytes of some thousand large tables.
MAX_TOTAL_BYTES = 256_000_000
ENVIRONMENT = {"LANG": "C.UTF-8", **ONE_THREAD}


@dataclass(frozen=True, slots=True)
class ProgramOutcome:
    """The outcome of a program: its ``result`` in plain values, or the ``error`` that ended it."""

    result: Any = None
    error: str | None = None


RESULTS_TOO_LARGE = ProgramOutcome(
    error="ValueError: the results of all programs together are too large"
)


def run_programs(
    programs: Sequence[tuple[str, str]],
    language: str,
    *,
    seconds: float,
    memory_mb: int,
    unsafe: bool = False,
) -> list[ProgramOutcome]:
    """Run each (code, tables as JSON) by itself, ``language`` ``sql`` or ``pandas``, [n].

    A program has ``seconds`` of time and ``memory_mb`` of memory, and nothing else: the kernel
    gives it no file, no network, no other process (``fence.py``). One that requests more is ended
    with an error; the next is not affected. Results that together take more than 256 MB are errors
    too. With ``unsafe`` it also runs where the kernel has no such fence, behind the available
    parts.

    Raises ``MachineError`` where the system cannot provide such a process.
    """
    check_machine(language, unsafe)
    outcomes: list[ProgramOutcome] = []
    bytes_left = MAX_TOTAL_BYTES
    while len(outcomes) < len(programs):
        with _process(language, seconds, memory_mb) as process:
            for one in _outcomes(process, programs[len(outcomes) :], seconds):
                bytes_left -= memory_bytes(one.result)
                outcomes.append(one if bytes_left >= 0 else RESULTS_TOO_LARGE)
    return outcomes


def isolation(language: str, unsafe: bool = False) -> str:
    """How programs are isolated on this machine, in words."""
    check_machine(language, unsafe)
    with _process(language, 1.0, 64) as process:
        network = process.network
    missing = {part: why for part, why in missing_fence_parts().items() if why is not None}
    if missing:
        return (
            f"the kernel does not isolate it ({_reasons(missing)}), as "
            "generate.execute_unsafe allows; only checks inside Python and limits on "
            "time and memory apply"
        )
    network_note = ", in its own network namespace" if network else ""
    return (
        f"the kernel gives it no file, no network and no process (Landlock, seccomp){network_note}"
    )


def check_machine(language: str, unsafe: bool = False) -> None:
    """Refuse a system that cannot isolate code, unless ``unsafe``, and pandas where it is
    missing.
    """
    if not sys.platform.startswith(("linux", "darwin")):
        rule = "needs processes with limits, which this system does not have"
        remedy = "Leave it out, or run on Linux."
        raise MachineError("generate.execute", rule, sys.platform, remedy)
    missing = {part: why for part, why in missing_fence_parts().items() if why is not None}
    if missing and not unsafe:
        raise MachineError(
            "generate.execute",
            "runs code that nobody has read, and the kernel cannot protect your "
            f"files from it here: it needs {' and '.join(missing)}",
            _reasons(missing),
            "Run on Linux 5.13 or newer (in a container: one that allows these "
            "calls), or leave it out. If you trust the code, set "
            "generate.execute_unsafe=true: then only checks inside Python protect "
            "you.",
        )
    if language == "pandas":
        need_packages("generate.execute", "pandas", install="'holdfast[code]'")


@functools.cache
def missing_fence_parts() -> dict[str, str | None]:
    """Why a part of the kernel's fence does not work on this machine, by part; ``None`` where it
    does. A separate process sets it up and tests it, once.
    """
    try:
        printed = subprocess.run(
            [sys.executable, "-I", "-S", "-B", str(FENCE)],
            capture_output=True,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            timeout=START_SECONDS,
            check=False,
        ).stdout
        parts = json.loads(printed)
        return {part: parts[part] for part in NEEDED}
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError):
        return dict.fromkeys(NEEDED, "it could not be tested")


def _reasons(missing: dict[str, str]) -> str:
    return "; ".join(f"{part}: {why}" for part, why in missing.items())


@dataclass(slots=True)
class _Process:
    """A running child: whether it has a network namespace of its own, how many requests it got, and
    its output after the last reply.
    """

    popen: subprocess.Popen[bytes]
    network: bool = False
    n_requests: int = 0
    unread: bytearray = field(default_factory=bytearray)


@contextlib.contextmanager
def _process(language: str, seconds: float, memory_mb: int) -> Iterator[_Process]:
    with tempfile.TemporaryDirectory(prefix="holdfast-code-") as empty:
        inner = subprocess.Popen(
            # Isolated (-I): neither the user's variables nor the current folder add a module. No
            # bytecode (-B).
            [sys.executable, "-I", "-B", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=empty,
            env=ENVIRONMENT,
            # Not in the terminal's process group: Ctrl-C reaches only Holdfast, which then ends it.
            start_new_session=True,
        )
        try:
            settings = {
                "language": language,
                "seconds": seconds,
                "memory_mb": memory_mb,
                "fence": [part for part, why in missing_fence_parts().items() if why is None],
            }
            process = _Process(inner)
            reply = _request(process, settings, START_SECONDS)
            if reply is None or "error" in reply:
                raise MachineError(
                    "generate.execute",
                    "could not start its process",
                    language if reply is None else f"{language}: {reply['error']}",
                    "Leave generate.execute out.",
                )
            process.network = bool(reply["result"]["network"])
            yield process
        finally:
            inner.kill()
            for stream in (inner.stdin, inner.stdout):
                with contextlib.suppress(OSError):
                    _require_stream(stream).close()
            inner.wait()


def _outcomes(
    process: _Process, programs: Sequence[tuple[str, str]], seconds: float
) -> Iterator[ProgramOutcome]:
    """Outcomes up to and including the first program that ends the process."""
    for code, tables in programs:
        reply = _request(process, {"code": code, "tables": tables}, seconds + GRACE_SECONDS)
        if reply is None:
            yield ProgramOutcome(error="the process that runs code ended")
            return
        yield ProgramOutcome(reply.get("result"), reply.get("error"))


def _request(process: _Process, message: dict[str, Any], seconds: float) -> dict[str, Any] | None:
    """The reply to this request; ``None`` where the process is dead, too slow, or replies to
    another request. It then gets no more requests.
    """
    number = process.n_requests
    process.n_requests += 1
    numbered = message if number == 0 else {**message, "number": number}
    stdin = _require_stream(process.popen.stdin)
    try:
        stdin.write(json.dumps(numbered).encode() + b"\n")
        stdin.flush()
    except OSError:
        return None
    deadline = time.monotonic() + seconds
    while (line := _line(process, deadline)) is not None:
        # The process has run untrusted code: its replies are trusted no more than a file.
        reply = parse(line, MAX_LINE_BYTES)
        if reply.get("number") == number:
            return reply
        if not isinstance(reply.get("number"), int) or reply["number"] > number:
            return None
        # A late reply to an earlier request is ignored.
    return None


def _line(process: _Process, deadline: float) -> bytes | None:
    """One line; ``None`` where none came before the deadline and within bounds."""
    stream, buffer = _require_stream(process.popen.stdout), process.unread
    while b"\n" not in buffer:
        seconds_left = deadline - time.monotonic()
        if (
            len(buffer) > MAX_LINE_BYTES
            or seconds_left <= 0
            or not select.select([stream], [], [], seconds_left)[0]
        ):
            return None
        part = stream.read1(1 << 16)  # type: ignore[attr-defined]
        if not part:
            return None
        buffer += part
    line, _, process.unread = buffer.partition(b"\n")
    return bytes(line)


def _require_stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream
