"""Alerts: what is sent, when, and what never leaves the machine."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast.training.listeners.alerts as alerts
from holdfast.core.decisions import decisions_to
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Verdict
from holdfast.recipe import Recipe, override
from holdfast.training.journal import Journal
from holdfast.training.listeners.alerts import Alerts

SECRET = "s3cret-token"


class Server(http.server.ThreadingHTTPServer):
    answers: list[int]
    got: list[dict[str, Any]]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append(json.loads(body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.end_headers()

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    made.answers, made.got = [], []
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HOOK", f"http://127.0.0.1:{made.server_port}/{SECRET}")
    monkeypatch.setattr(alerts, "FIRST_WAIT_S", 0.01)
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


class Noted(Journal):
    """A journal whose notes lie in a list."""

    def __init__(self, notes: list[Any]) -> None:
        super().__init__(None)
        self.notes = notes

    def note(self, step: int, what: str, because: str, **more: object) -> None:
        self.notes.append((step, what, because, more))


class Run:
    """What the listener reads of a run."""

    def __init__(self) -> None:
        self.step = 0
        self.verdict: Verdict | None = None
        self.notes: list[Any] = []
        self.journal = Noted(self.notes)

    def look(self, listener: Alerts, label: Any) -> None:
        self.step += 10
        self.verdict = Verdict(label, f"it is {label}", 0.9, since_step=3)
        listener.snapshot_taken(self)


ALL = ("learning", "healthy", "overfit", "diverging")


def delivered(listener: Alerts) -> None:
    """Wait until what was sent so far has arrived: two alerts on their way may overtake each
    other."""
    for thread in listener._threads:
        thread.join()


def test_a_change_of_verdict_is_posted_once(server: Server) -> None:
    listener, run = Alerts(ALL, None, "env:HOOK", "reviews-1"), Run()
    for label in ("learning", "learning", "overfit", "overfit"):
        run.look(listener, label)
        delivered(listener)
    listener.run_end(run)
    assert [(m["verdict"], m["step"]) for m in server.got] == [("learning", 10), ("overfit", 30)]
    assert server.got[1]["because"] == "it is overfit"
    assert server.got[1]["run"] == "reviews-1"
    assert run.notes == []


def test_step_0_is_no_alert_and_what_still_holds_is_told_at_the_next_look(server: Server) -> None:
    listener, run = Alerts(ALL, None, "env:HOOK", "r"), Run()
    run.step = -10
    for label in ("diverging", "diverging", "diverging"):
        run.look(listener, label)
        delivered(listener)
    listener.run_end(run)
    assert [(m["verdict"], m["step"]) for m in server.got] == [("diverging", 10)]


def test_only_the_verdicts_asked_for_are_sent(server: Server) -> None:
    listener, run = Alerts(("overfit",), None, "env:HOOK", "r"), Run()
    for label in ("learning", "overfit", "healthy"):
        run.look(listener, label)
    listener.run_end(run)
    assert [m["verdict"] for m in server.got] == ["overfit"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answers", "posts", "notes"), [([500, 503], 3, 0), ([500] * 3, 3, 1), ([404], 1, 1)]
)
def test_a_server_in_trouble_is_asked_again_and_a_refusal_is_not(
    server: Server, answers: list[int], posts: int, notes: int
) -> None:
    server.answers = list(answers)
    told: list[Decision] = []
    listener, run = Alerts(ALL, None, "env:HOOK", "r"), Run()
    run.look(listener, "overfit")
    with decisions_to(told.append):
        listener.run_end(run)
    assert len(server.got) == posts
    assert len(run.notes) == len(told) == notes
    assert SECRET not in str(run.notes) + str(told)


def test_a_server_that_is_not_there_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("HOOK", f"http://127.0.0.1:9/{SECRET}")
    listener, run = Alerts(ALL, None, "env:HOOK", "r"), Run()
    run.look(listener, "overfit")
    listener.run_end(run)
    assert len(run.notes) == 1
    assert SECRET not in run.notes[0]


def test_a_command_gets_the_alert_on_its_standard_input(tmp_path: Path) -> None:
    out = tmp_path / "alert.json"
    listener, run = Alerts(ALL, f"cat > {out}", None, "r"), Run()
    run.look(listener, "overfit")
    listener.run_end(run)
    assert json.loads(out.read_text())["verdict"] == "overfit"


def test_a_run_does_not_wait_for_a_command(tmp_path: Path) -> None:
    """The command ends only after the look has: a look that waited for it would note it as late."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    listener, run = Alerts(ALL, f"cat '{gate}'", None, "r"), Run()
    run.look(listener, "overfit")
    gate.write_text("go")
    listener.run_end(run)
    assert run.notes == []


def test_a_command_that_hangs_or_fails_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "TIMEOUT_S", 0.2)
    for command in ("sleep 600", f"exit 3 # {SECRET}"):
        listener, run = Alerts(ALL, command, None, "r"), Run()
        run.look(listener, "overfit")
        listener.run_end(run)
        assert len(run.notes) == 1
        assert SECRET not in run.notes[0]


def test_a_resumed_run_does_not_say_it_again(server: Server) -> None:
    first, run = Alerts(ALL, None, "env:HOOK", "r"), Run()
    run.look(first, "overfit")
    first.run_end(run)
    again = Alerts(ALL, None, "env:HOOK", "r")
    again.load_state_dict(first.state_dict())
    run.look(again, "overfit")
    again.run_end(run)
    assert len(server.got) == 1


@pytest.mark.parametrize("value", ["https://hooks.example/abc", "env:", "env:NOT_SET", "env:EMPTY"])
def test_an_address_is_never_taken_from_a_recipe(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY", "not an address")
    with pytest.raises(RecipeError) as error:
        Alerts(ALL, None, value, "r")
    assert "hooks.example" not in str(error.value)


def test_an_unknown_verdict_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match="overfit"):
        override(Recipe(), ["alert.on=overfitt"])
    assert override(Recipe(), ["alert.on=overfit"]).alert.on == ("overfit",)


def test_a_command_that_takes_too_long_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "TIMEOUT_S", 0.3)
    # Both hold the pipe, which comes to its end with the last of them.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    listener, run = Alerts(ALL, f"exec > '{pipe}'; sleep 600 & sleep 600", None, "r"), Run()
    run.look(listener, "overfit")
    listener.run_end(run)
    assert len(run.notes) == 1
    os.set_blocking(reading, True)
    with os.fdopen(reading, "rb") as stream:
        assert stream.read() == b""
