"""The process that runs code, started with ``python -I child.py``.

It imports nothing of Holdfast, prepares itself without starting a thread (``fork.py``), and runs
each program in a fork of itself behind the fence.

It reads one JSON object a line: first the settings, then ``{"number", "code", "tables"}``; it
replies to each with ``{"number"}`` and ``"result"`` or ``"error"``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def load_sibling(name: str) -> Any:
    """Import a module of this folder without its package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Worker:
    """One language with its modules loaded, and the limits of each program.

    ``fence`` names the parts of the kernel's fence that work on this machine: a program runs behind
    each of them or not at all.
    """

    def __init__(self, language: str, seconds: float, memory_mb: int, fence: Sequence[str]) -> None:
        self.seconds, self.memory_mb, self.parts = seconds, memory_mb, list(fence)
        self.fence, self.messages, self.forking = (
            load_sibling("fence"),
            load_sibling("messages"),
            load_sibling("fork"),
        )
        self.network = self.fence.leave_network()
        self.runner = load_sibling("run_sql" if language == "sql" else "run_pandas")
        self.runner.prepare(load_sibling)
        # Checked at the start, where it is the machine's fault, and not with a program.
        self.forking.require_one_thread()

    def answer(self, job: dict[str, Any]) -> dict[str, Any]:
        """The result of the program, run in a fork that is dead when this returns."""
        # Before the fork: behind the fence no file can be opened, not even a module's.
        self.runner.load_for(job["code"])
        reading, writing = os.pipe()
        process = self.forking.fork()
        if process == 0:
            self._run_in_fork(job, writing)
        os.close(writing)
        reply = self._read_reply(reading)
        os.close(reading)
        # The fork may not have created its group yet.
        for kill in (os.killpg, os.kill):
            try:
                kill(process, signal.SIGKILL)
            except OSError:
                continue
        os.waitpid(process, 0)
        if reply is None:
            return {"error": f"TimeoutError: longer than {self.seconds:g} s"}
        return dict(self.messages.parse(reply))

    def _run_in_fork(self, job: dict[str, Any], writing: int) -> None:
        """Never returns."""
        try:
            unsent = self._outcome(job, writing)
            while unsent:
                unsent = unsent[os.write(writing, unsent) :]
        finally:
            # Skips every handler of the parent's that the fork inherited, and never returns to its
            # loop.
            os._exit(0)

    def _outcome(self, job: dict[str, Any], writing: int) -> bytes:
        try:
            # A group of its own, so that its children die with it even where no fence forbids them.
            os.setpgid(0, 0)
            self.fence.enter(self.parts, self.seconds, self.memory_mb, writing)
        except (OSError, ValueError) as error:
            return json.dumps(
                {"error": f"the program was not run, since the fence does not work: {error}"}
            ).encode()
        try:
            tables = self.messages.tables_of(job["tables"])
            result = self.runner.run(job["code"], tables, self.seconds)
            return json.dumps({"result": result}, allow_nan=True).encode()
        # ``exit()`` and an interrupt are results of the program too.
        except BaseException as error:
            return json.dumps({"error": f"{type(error).__name__}: {error}"[:300]}).encode()

    def _read_reply(self, reading: int) -> bytes | None:
        """Read until the fork has finished or sent too much; ``None`` where its time is over
        first.
        """
        reply = bytearray()
        deadline = time.monotonic() + self.seconds
        while len(reply) <= self.messages.MOST_BYTES:
            seconds_left = deadline - time.monotonic()
            if seconds_left <= 0 or not select.select([reading], [], [], seconds_left)[0]:
                return None
            part = os.read(reading, 65536)
            if not part:
                break
            reply += part
        return bytes(reply)


def main() -> None:
    """Reply line by line until the input ends."""
    settings = json.loads(sys.stdin.readline())
    try:
        worker = Worker(**settings)
    except RuntimeError as error:
        print(json.dumps({"error": str(error), "number": 0}), flush=True)
        return
    print(json.dumps({"result": {"network": worker.network}, "number": 0}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps({**worker.answer(job), "number": job["number"]}), flush=True)


if __name__ == "__main__":
    main()
