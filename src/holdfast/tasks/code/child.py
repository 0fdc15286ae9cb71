"""The process that runs code: started alone (``python -I child.py``), it imports nothing of
Holdfast, makes itself ready, and lets a fork of itself run each program under the limits.

It reads one JSON object a line: first the settings, then ``{"code", "tables"}``; it answers each
with ``{"result"}`` or ``{"error"}``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

MOST_BYTES = 4_000_000


def beside(name: str) -> Any:
    """A module of this folder, without the package around it."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Worker:
    """One language, its modules loaded, and the limits that each program gets."""

    def __init__(self, language: str, seconds: float, memory_mb: int) -> None:
        self.language, self.seconds, self.memory_mb = language, seconds, memory_mb
        self.limits, self.tables = beside("limits"), beside("tables")
        self.words = beside("pandas_words")
        self.network = self.limits.leave_network()
        self.runner = beside("run_sql" if language == "sql" else "run_pandas")
        self.runner.prepare()

    def answer(self, job: dict[str, Any]) -> dict[str, Any]:
        """What the program gave, run in a fork that is dead when this returns."""
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(reading)
            self._in_the_fork(job, writing)
        os.close(writing)
        held = self._read(reading)
        os.close(reading)
        _kill(process)
        return held

    def _in_the_fork(self, job: dict[str, Any], writing: int) -> None:
        """Never returns."""
        try:
            os.setpgid(0, 0)
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
            self.limits.enter(self.seconds, self.memory_mb)
            told = json.dumps({"result": self._run(job)}, allow_nan=True)
        except BaseException as error:
            told = json.dumps({"error": f"{type(error).__name__}: {error}"[:300]})
        try:
            held = told.encode()
            while held:
                held = held[os.write(writing, held) :]
        finally:
            os._exit(0)

    def _run(self, job: dict[str, Any]) -> Any:
        tables = self.tables.tables_of(job["tables"])
        if self.language == "sql":
            return self.runner.run(job["code"], tables, self.seconds)
        return self.runner.run(job["code"], tables, self.words)

    def _read(self, reading: int) -> dict[str, Any]:
        """Until the fork has said all, its time is over, or it says too much."""
        parts: list[bytes] = []
        deadline = time.monotonic() + self.seconds
        while sum(map(len, parts)) <= MOST_BYTES:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([reading], [], [], left)[0]:
                return {"error": f"TimeoutError: longer than {self.seconds:g} s"}
            part = os.read(reading, 65536)
            if not part:
                return _parsed(b"".join(parts))
            parts.append(part)
        return {"error": "ValueError: the result is too large"}


def _parsed(told: bytes) -> dict[str, Any]:
    try:
        held = json.loads(told)
    except ValueError:
        return {"error": "the process was killed by its limits"}
    return held if isinstance(held, dict) else {"error": "the answer is no object"}


def _kill(process: int) -> None:
    for kill in (os.killpg, os.kill):
        try:
            kill(process, signal.SIGKILL)
        except OSError:
            continue
    os.waitpid(process, 0)


def main() -> None:
    """Answer line by line until the input ends."""
    settings = json.loads(sys.stdin.readline())
    worker = Worker(**settings)
    print(json.dumps({"network": worker.network}), flush=True)
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
