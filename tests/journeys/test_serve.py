"""``holdfast serve``: a finished run answers over HTTP as ``holdfast predict`` does."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.errors import InputError
from holdfast.plugins.service.compose import compose
from holdfast.plugins.service.options import ServeOptions
from holdfast.plugins.service.settings import serving

TEXTS = ["a good one", "", "bad bad bad " * 400, "Grüße 😀", "it was not what I had hoped for"]
TOKEN = "not-a-token-of-anybody-0123456789"


MAIN = "from holdfast.cli.main import main; main()"


def holdfast(*args: object, program: str = MAIN) -> list[str]:
    return [sys.executable, "-c", program, *map(str, args)]


class Served:
    """A server, the line that it said, and how it is asked."""

    def __init__(self, folder: Path, *args: object, program: str = MAIN) -> None:
        self.errors = folder / "errors.txt"
        with self.errors.open("w") as stream:
            self.process = subprocess.Popen(
                holdfast("serve", *args, "--port", 0, program=program),
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
            )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.url = self.line.split()[0] if self.line else ""

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, _read(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _read(error.read())

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def close(self) -> None:
        self.process.kill()
        # Its pipe too: one that garbage collection closes fails whichever test it comes in.
        self.process.communicate(timeout=60)


def _read(body: bytes) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(body)
    return body.decode()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, finished_run: Path) -> Path:
    """A run of its own: what drift is measured against is kept in its folder."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    shutil.copytree(finished_run, folder)
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, run: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    token = folder / "token"
    token.touch(0o600)
    token.write_text(TOKEN)
    one = Served(
        folder,
        run,
        *("--host", "0.0.0.0", "--token-file", token, "--store", folder / "store.db"),
        *("--set", "serve.max_rows=2000", "--set", "serve.log_texts=true"),
    )
    try:
        yield one
    finally:
        one.close()


def known(served: Served, path: str, body: Any = None) -> tuple[int, Any]:
    return served.ask(path, body, Authorization=f"Bearer {TOKEN}")


@pytest.mark.slow
def test_one_line_says_that_it_answers_and_how(served: Served) -> None:
    assert served.line.startswith("http://127.0.0.1:"), served.errors.read_text()
    for word in ("text-classification", "float32", "store.db"):
        assert word in served.line
    assert known(served, "/health/ready")[1] == {"ready": True}


@pytest.mark.slow
def test_answers_are_those_of_predict(served: Served, finished_run: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": one}) + "\n" for one in TEXTS))
    done = subprocess.run(
        holdfast("predict", finished_run, rows, "--set", "predict.probabilities=true", "--quiet"),
        capture_output=True,
        text=True,
        check=True,
    )
    said = [json.loads(line) for line in done.stdout.splitlines()]
    status, answer = known(served, "/predict", {"texts": TEXTS})
    assert status == 200
    for one, other in zip(answer["predictions"], said, strict=True):
        assert (one["prediction"] or "") == (other["prediction"] or "")
        if one["confidence"] is None:
            assert other["confidence"] is None
            continue
        assert one["confidence"] == pytest.approx(other["confidence"], abs=1e-5)
        for name, share in one["probabilities"].items():
            assert share == pytest.approx(other[f"probability_{name}"], abs=1e-5)


def test_a_thousand_rows_are_one_request_and_the_bound_is_kept(served: Served) -> None:
    status, answer = known(served, "/predict", {"texts": [f"row {k} is good" for k in range(1000)]})
    assert (status, len(answer["predictions"])) == (200, 1000)
    assert known(served, "/predict", {"texts": ["a"] * 2001})[0] == 400


def test_reasons_come_from_the_model_that_answers(served: Served) -> None:
    status, answer = known(served, "/explain", {"texts": ["a good one", ""]})
    assert status == 200
    first, second = answer["explanation"]["rows"]
    assert first["units"] == ["a", "good", "one"]
    assert first["reasons"]
    assert second["because"]
    assert "/" not in answer["explanation"]["run"]
    assert known(served, "/explain", {"texts": ["a"] * 9})[0] == 400


def test_nobody_gets_in_without_the_token_which_stands_nowhere(served: Served) -> None:
    assert served.ask("/predict", {"text": "a"})[0] == 401
    assert served.ask("/predict", {"text": "a"}, Authorization=f"Bearer {TOKEN}x")[0] == 401
    assert served.ask("/health/live")[0] == 200
    command = Path(f"/proc/{served.process.pid}/cmdline").read_bytes()
    environment = Path(f"/proc/{served.process.pid}/environ").read_bytes()
    said = served.line + served.errors.read_text() + str(known(served, "/metrics"))
    assert TOKEN not in said
    assert TOKEN.encode() not in command + environment


def test_other_protocols_say_what_this_model_is_not(served: Served) -> None:
    status, answer = known(served, "/v1/chat/completions", {"messages": []})
    assert status in (400, 404)
    assert "text-classification" in answer["error"]["message"]
    status, answer = known(served, "/v2/models/finished")
    assert answer["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]


def test_the_page_of_the_engine_shows_and_explains_its_metrics(served: Served) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "engine.md").read_text("utf-8")
    printed = re.findall(r"^(holdfast_engine_\w+) [\d.e+-]+$", known(served, "/metrics")[1], re.M)
    shown = page.partition("```text\n")[2].partition("```")[0].splitlines()
    assert shown[0] == "$ curl -s localhost:8080/metrics | grep ^holdfast_engine"
    names = [line.split()[0] for line in shown[1:] if line != "…"]
    assert names == [name for name in printed if name in names]
    explained = {
        f"holdfast_engine_{name}"
        for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert explained == set(printed)


@pytest.mark.slow
def test_it_ends_whole_and_all_stands_in_the_store(served: Served) -> None:
    from holdfast.plugins.store.store import open_store

    body = {"texts": ["a good one", "write to jo@example.com"], "user": "ann"}
    request = known(served, "/predict", body)[1]["id"]
    name = known(served, "/model")[1]["classes"][0]
    label = {"id": request, "index": 1, "label": name, "who": "jo"}
    status, answer = known(served, "/feedback", label)
    assert (status, answer["row"]) == (200, True), answer
    assert served.end() == 0
    store = open_store(str(served.errors.parent / "store.db"))
    found = store.request(request)
    assert found is not None
    # Personal data is masked, in what is kept and in the row of a label.
    assert [one.row["text"] for one in found.texts] == ["a good one", "write to [EMAIL]"]
    assert [(one.label, dict(one.row or {})) for one in store.feedback()] == [
        (name, {"text": "write to [EMAIL]"})
    ]
    assert "Traceback" not in served.errors.read_text()


@pytest.mark.slow
def test_without_a_store_named_one_lies_beside_the_run_and_drift_is_watched(
    run: Path, tmp_path: Path
) -> None:
    link = tmp_path / "reviews"
    link.symlink_to(run)
    before = {one.name for one in run.iterdir()}
    one = Served(tmp_path, link, "--quiet")
    try:
        assert one.ask("/predict", {"text": "a"})[0] == 200
        for _ in range(600):
            status, found = one.ask("/drift")
            if status == 200:
                break
            time.sleep(0.05)
        assert status == 200, one.errors.read_text()
        assert set(found["observers"]) == {"drift"}
        assert one.end() == 0
        assert run.with_name("finished.store.db").is_file()
        assert "holdfast: stopping: answering the requests" in one.errors.read_text()
        assert {one.name for one in run.iterdir()} - before <= {"reference.npz"}
    finally:
        one.close()


# The reference of a large model, or of many rows: a pass that takes longer than is waited for.
LONG_REFERENCE = """
import sys
import torch
from holdfast.plugins.service import drift_observer, service
service.FLUSH_S = 0.1
def passes(again):
    layer = torch.nn.Linear(64, 64)
    print("the pass begins", file=sys.stderr, flush=True)
    while True:
        layer(torch.randn(8, 64)).sum().backward()
drift_observer.load_reference = passes
from holdfast.cli.main import main
main()
"""


@pytest.mark.slow
def test_told_to_end_while_the_reference_of_drift_is_made_it_ends_with_0(
    finished_run: Path, tmp_path: Path
) -> None:
    fresh = tmp_path / "reviews"
    shutil.copytree(finished_run, fresh)
    (fresh / "reference.npz").unlink(missing_ok=True)
    one = Served(tmp_path, fresh, program=LONG_REFERENCE)
    try:
        # The observer joins once the service answers: a first request may come before it.
        for _ in range(1200):
            assert one.ask("/predict", {"text": "a"})[0] == 200
            if "the pass begins" in one.errors.read_text():
                break
            time.sleep(0.05)
        assert one.end() == 0
        said = one.errors.read_text()
        assert "the pass begins" in said
        assert "terminate called" not in said
    finally:
        one.close()


@pytest.mark.slow
def test_a_host_that_others_reach_needs_a_token(finished_run: Path) -> None:
    done = subprocess.run(
        holdfast("serve", finished_run, "--host", "0.0.0.0", "--port", 0),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "--token-file FILE" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_cannot_be_served_is_refused_before_a_model_is_loaded(
    finished_run: Path, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        short = tmp_path / "token"
        short.write_text("short")
        short.chmod(0o600)
        wrong: list[tuple[str, dict[str, Any]]] = [
            ("is not a folder", {"run": tmp_path / "none"}),
            ("is not a folder", {"challenger": tmp_path / "none"}),
            ("so a token is required", {"host": "::"}),
            ("fewer than 16", {"token_file": short}),
            ("is unknown", {"precision": "int4"}),
            (
                "is not a valid host",
                {"host": "no.such.host.invalid", "token_file": _token(tmp_path)},
            ),
            (
                "is not an address of this machine",
                {"host": "192.0.2.1", "token_file": _token(tmp_path)},
            ),
            (tmp_path.name, {"store": str(tmp_path)}),
            ("is in use", {"port": port}),
        ]
        for rule, change in wrong:
            run = change.pop("run", finished_run)
            options = ServeOptions(**{"port": 0, "store": "none", **change})
            with pytest.raises(InputError, match=rule):
                compose(run, options, serving(), lambda _: None, print, lambda _: None)


def test_a_store_beside_the_run_that_cannot_be_made_says_how_to_do_without(
    finished_run: Path, tmp_path: Path
) -> None:
    # Not of ``run``: the service that serves it may be writing there.
    link = tmp_path / "other"
    shutil.copytree(finished_run, link)
    (tmp_path / "other.store.db").mkdir()
    with pytest.raises(InputError) as caught:
        compose(link, ServeOptions(port=0), serving(), lambda _: None, print, lambda _: None)
    assert "--store none" in caught.value.remedy


def _token(folder: Path) -> Path:
    path = folder / "long"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path
