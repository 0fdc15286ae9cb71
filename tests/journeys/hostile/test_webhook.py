"""An alert's address is a secret, and whatever its server does fails nothing."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import holdfast.training.listeners.alerts as alerts
from holdfast.core.decisions import decisions_to
from holdfast.core.records import Verdict
from holdfast.training.journal import Journal

SECRET = "s3cret-t0ken"
BAD = {
    "a space": f"http://127.0.0.1:9/a b/{SECRET}",
    "a line end": f"http://127.0.0.1:9/{SECRET}\nHost: other",
    "a tab inside": f"http://127.0.0.1\t:9/{SECRET}",
    "a letter beyond ASCII": f"http://127.0.0.1:9/é{SECRET}",
    "a control character": f"http://127.0.0.1:9/\x1b[2J{SECRET}",
    "a port that is a word": f"http://127.0.0.1:{SECRET}/",
    "a port too high": f"http://127.0.0.1:99999/{SECRET}",
    "port 0": f"http://127.0.0.1:0/{SECRET}",
    "a broken host": f"http://[::1/{SECRET}",
    "no host": f"http:///{SECRET}",
    "an empty part of a host": f"http://a..b/{SECRET}",
    "a long part of a host": f"http://{'a' * 64}.b/{SECRET}",
    "another scheme": f"file:///{SECRET}",
    "a password": f"http://me:{SECRET}@127.0.0.1:9/",
    "no scheme": f"127.0.0.1:9/{SECRET}",
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("options", [["--dry-run"], []], ids=["dry-run", "train"])
def test_an_address_that_cannot_be_asked_is_told_first(
    holdfast: Any,
    marked_csv: Path,
    sets: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    options: list[str],
) -> None:
    monkeypatch.setenv("HOOK", BAD[name])
    done = holdfast("train", marked_csv, *sets, "--set", "alert.webhook=env:HOOK", *options)
    assert done.code == 2, done.err
    assert "HOOK" in done.err
    assert SECRET not in done.out + done.err
    assert list(tmp_path.iterdir()) == []


class Server:
    """Answers each connection with the same bytes, and keeps what was asked."""

    def __init__(self, answer: bytes) -> None:
        self.asked: list[bytes] = []
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(2)
                self.asked.append(connection.recv(65536))
                connection.sendall(self._answer)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(2)


@pytest.fixture
def serve() -> Iterator[Callable[[bytes], Server]]:
    made: list[Server] = []

    def start(answer: bytes) -> Server:
        made.append(Server(answer))
        return made[-1]

    yield start
    for server in made:
        server.close()


class Noted(Journal):
    """A journal whose notes lie in a list."""

    def __init__(self, notes: list[Any]) -> None:
        super().__init__(None)
        self.notes = notes

    def note(self, step: int, what: str, because: str, **more: object) -> None:
        self.notes.append((step, what, because, more))


def told(monkeypatch: pytest.MonkeyPatch, address: str) -> list[str]:
    """What a listener says that could not be delivered."""
    monkeypatch.setattr(alerts, "FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("HOOK", address)
    said: list[str] = []
    notes: list[Any] = []
    listener = alerts.Alerts(("overfit",), None, "env:HOOK", "r")
    run: Any = SimpleNamespace(
        step=10, verdict=Verdict("overfit", "it is", 0.9), journal=Noted(notes)
    )
    listener.snapshot_taken(run)
    with decisions_to(lambda d: said.append(d.because)):
        listener.run_end(run)
    assert SECRET not in str(said) + str(notes)
    assert len(notes) == len(said)
    return said


GARBAGE = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "nothing": b"",
    "a status that is a word": b"HTTP/1.1 many thanks\r\n\r\n",
    "a header without end": b"HTTP/1.1 200 OK\r\n" + b"x" * 70_000,
    "bytes that are no text": b"\xff\xfe\x00\x00\r\n\r\n",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_a_garbage_answer_is_one_line(
    serve: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    server = serve(GARBAGE[name])
    said = told(monkeypatch, f"http://127.0.0.1:{server.port}/{SECRET}")
    assert len(said) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_not_delivered(
    serve: Any, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    elsewhere = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    there = f"http://127.0.0.1:{elsewhere.port}/taken"
    answer = f"HTTP/1.1 {code} Moved\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n"
    server = serve(answer.encode())
    said = told(monkeypatch, f"http://127.0.0.1:{server.port}/{SECRET}")
    assert said == [f"the webhook responded with {code}, a redirect, which is not followed"]
    assert elsewhere.asked == []


@pytest.mark.slow
def test_a_command_stands_in_the_recipe_alone(
    holdfast: Any, marked_csv: Path, sets: list[str], tmp_path: Path
) -> None:
    command = f"cat > /dev/null # {SECRET}"
    changed = ("--set", "train.epochs=1", "--set", f"alert.command={command!r}")
    done = holdfast("train", marked_csv, "--out", "run", "--json", *sets, *changed)
    assert done.code == 0, done.err
    holding = [
        path.relative_to(tmp_path).as_posix()
        for path in tmp_path.rglob("*")
        if path.is_file() and SECRET.encode() in path.read_bytes()
    ]
    assert holding == ["run/recipe.yaml"]
    assert SECRET not in done.out + done.err
    assert "code that runs: alert.command" in done.err
    assert "recipe.yaml" in json.loads(done.out)["settings"]["alert"]["command"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--dry-run"], ["--out", "run"]], ids=["dry-run", "train"])
def test_a_file_that_a_recipe_runs_is_named_first(
    holdfast: Any, marked_csv: Path, sets: list[str], tmp_path: Path, options: list[str]
) -> None:
    metric = "def share(labels, predictions, probabilities):\n    return 1.0\n"
    (tmp_path / "theirs.py").write_text(metric + "share.higher_is_better = True\n")
    policy = "class Own:\n    def decide(self, sight):\n        return None\n"
    (tmp_path / "mine.py").write_text(policy)
    changed = ("--set", "train.epochs=1", "--set", "train.metric=theirs.py:share")
    changed += ("--set", "control.policy=mine.py:Own")
    done = holdfast("train", marked_csv, *sets, *changed, *options)
    assert done.code == 0, done.err
    assert "code that runs: theirs.py:share" in done.err
    assert "code that runs: mine.py:Own" in done.err
