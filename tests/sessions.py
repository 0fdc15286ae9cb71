"""Sessions of a terminal that pages show, and their commands: loaded by path, as ``pages.py``.

A session is a ``text`` fence that begins with ``$ `` and has a command that ends with `` &``: a
process that is started and goes on. Each command is run by a shell, and what it prints is compared
with the lines below it; ``…`` stands for anything. Ports are replaced by free ones, and the id of a
request by the one that the service gave. White space and figures are not compared.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PORT = re.compile(r"(?<=--port )\d+|(?<=localhost:)\d+|(?<=127\.0\.0\.1:)\d+")
ID = re.compile(r"\b(?:chatcmpl-)?[0-9a-f]{32}\b")
CHECKSUM = re.compile(r"(?<=@)[0-9a-f]{8}\b")
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")
# How long a model may take to be loaded, or a request to reach the store, among other work.
WAIT_S = 300.0


def steps(session: str) -> Iterator[tuple[str, str]]:
    """Each command, and what it prints; a line that ends with a backslash goes on."""
    for step in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        command, _, shown = step.replace("\\\n", " ").partition("\n")
        yield " ".join(command.split()), shown


def plain(text: str) -> str:
    text = CHECKSUM.sub("#", ID.sub("#", text))
    return "".join(NUMBER.sub("#", text).split())


def is_printed(shown: str, printed: str) -> bool:
    """Whether the parts of ``shown`` between ``…`` are in ``printed``, in this order."""
    text, at = plain(printed), 0
    for part in map(plain, shown.split("…")):
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


class Terminal:
    """Runs sessions in ``folder``; ends at the end what they started, which must leave with 0."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports: dict[str, str] = {}
        self._ids: dict[str, str] = {}
        self._started: list[subprocess.Popen[bytes]] = []
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self._env = {**os.environ, "PATH": path}

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        for process in self._started:
            process.send_signal(signal.SIGKILL if failed else signal.SIGTERM)
        codes = [process.wait(120) for process in self._started]
        assert failed or not any(codes)

    def run(self, session: str) -> None:
        for command, shown in steps(session):
            start = command.endswith(" &")
            printed = self._start(command, shown) if start else self._run(command, shown)
            assert is_printed(shown, printed), f"{command}\n{printed}"
            self._ids.update(zip(ID.findall(shown), ID.findall(printed), strict=False))

    def here(self, text: str) -> str:
        """``text`` with the ports and ids of this session."""
        text = PORT.sub(lambda port: self._port(port[0]), text)
        return ID.sub(lambda one: self._ids.get(one[0], one[0]), text)

    def _port(self, shown: str) -> str:
        if shown not in self._ports:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self._ports[shown] = str(free.getsockname()[1])
        return self._ports[shown]

    def _start(self, command: str, shown: str) -> str:
        """What it prints until it has printed ``shown``, or ends."""
        command = command.removesuffix(" &")
        if command.startswith("holdfast serve") and "--port" not in command:
            command += " --port 8080"
        log = self._folder / f"terminal-{len(self._started)}.txt"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {self.here(command)}"],
                cwd=self._folder,
                env=self._env,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self._started.append(process)
        until = time.monotonic() + WAIT_S
        while process.poll() is None and time.monotonic() < until:
            if is_printed(shown, log.read_text("utf-8")):
                break
            time.sleep(0.1)
        return log.read_text("utf-8")

    def _run(self, command: str, shown: str) -> str:
        """A request that is refused is sent again: another service finds a request in the store
        about a second after it was answered."""
        until = time.monotonic() + 30.0
        while True:
            done = subprocess.run(
                ["bash", "-c", self.here(command)],
                cwd=self._folder,
                env=self._env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=WAIT_S,
                check=False,
            )
            if not done.stdout.startswith('{"error"') or time.monotonic() > until:
                return done.stdout
            time.sleep(0.2)


def sessions_of(page: Path) -> list[str]:
    """The sessions of a page."""
    return [
        fence
        for fence in re.findall(r"^```text\n(\$ .*?)^```$", page.read_text("utf-8"), re.M | re.S)
        if any(command.endswith(" &") for command, _ in steps(fence))
    ]
