"""Two runs of tiny models in a real server: compared, promoted, taken back, no request lost."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


class Server:
    """``holdfast serve`` as a process."""

    def __init__(self, *args: object) -> None:
        self.process = subprocess.Popen(
            [*_program(), "serve", *map(str, args), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.address = line.split()[0].removeprefix("http://") if line else ""

    def ask(self, path: str, body: Any = None) -> Any:
        link = http.client.HTTPConnection(self.address, timeout=100)
        try:
            given = None if body is None else json.dumps(body)
            link.request("GET" if body is None else "POST", path, given)
            answer = link.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            link.close()

    def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said


def _program() -> list[str]:
    beside = Path(sys.executable).with_name("holdfast")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "holdfast"]


def holdfast(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_program(), *map(str, args)], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def start(*args: object) -> Server:
        made.append(Server(*args))
        return made[-1]

    yield start
    for one in made:
        if one.process.poll() is None:
            os.kill(one.process.pid, signal.SIGKILL)
            one.process.communicate()


def until(there: Callable[[], Any], within_s: float = 100.0) -> Any:
    end = time.monotonic() + within_s
    while not (found := there()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


@pytest.mark.slow
def test_a_challenger_is_compared_promoted_and_taken_back_under_traffic(
    finished_run: Path, tmp_path: Path, serve: Callable[..., Server]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for one in (first, second):
        shutil.copytree(finished_run, one)
    store = tmp_path / "live.db"
    server = serve(first, "--store", store, "--challenger", second, "--set", "serve.lag_s=1")
    assert server.address
    heard: list[tuple[int, str]] = []
    stop = threading.Event()

    def traffic() -> None:
        while not stop.is_set():
            status, said = server.ask("/predict", {"texts": ["a fine thing", "a bad one"]})
            heard.append((status, said.get("model", "")))

    going = threading.Thread(target=traffic)
    going.start()
    try:
        # The same model twice: it answers alike, and needs no label to be as good.
        said = until(lambda: _compared(server) if _compared(server).get("rows", 0) >= 20 else None)
        assert said["unlike"] == 0
        assert said["agreement"]["value"] == 1.0
        done = holdfast("promote", second, "--store", store)
        assert done.returncode == 0, done.stderr
        assert "second@" in done.stdout
        until(lambda: heard[-1][1].startswith("second@"))
        back = holdfast("promote", second, "--store", store, "--undo")
        assert back.returncode == 0, back.stderr
        until(lambda: heard[-1][1].startswith("first@"))
        again = holdfast("promote", second, "--store", store, "--undo")
        assert again.returncode == 2
        assert "is not served" in again.stderr
        assert holdfast("promote", second, "--store", store).returncode == 0
        until(lambda: heard[-1][1].startswith("second@"))
    finally:
        stop.set()
        going.join()
    assert {status for status, _ in heard} == {200}
    code, told = server.end()
    assert code == 0
    assert "was promoted and is now served instead of first@" in told
    after = serve(first, "--store", store)
    assert after.ask("/predict", {"texts": ["a"]})[1]["model"].startswith("second@")
    assert "was promoted in place of first@" in after.end()[1]


def _compared(server: Server) -> dict[str, Any]:
    status, said = server.ask("/comparison")
    found: dict[str, Any] = said["observers"].get("comparison", {}) if status == 200 else {}
    return found


@pytest.mark.slow
def test_a_challenger_of_other_classes_is_refused(
    finished_run: Path, tmp_path: Path, old_runs: Path
) -> None:
    other = next(
        one
        for one in sorted((old_runs / "runs").iterdir())
        if json.loads((one / "result.json").read_text())["task"] != "text-classification"
    )
    done = holdfast(
        "serve", finished_run, "--store", tmp_path / "x.db", "--challenger", other, "--port", "0"
    )
    assert done.returncode == 2, done.stderr
    assert "has another task than the served" in " ".join(done.stderr.split())
