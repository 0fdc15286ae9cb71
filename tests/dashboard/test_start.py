"""The command as a shell runs it: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import uvicorn

from holdfast.core.errors import MachineError, RunError
from holdfast.plugins.dashboard import app
from holdfast.plugins.dashboard.app import run_dashboard

HOLDFAST = [sys.executable, "-c", "from holdfast.cli.main import main; main()", "dashboard"]


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A dashboard on a free port, and the address that it printed."""
    process = subprocess.Popen(
        [*HOLDFAST, *arguments, "--port", "0"], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", process.stdout.readline())
        assert found is not None
        yield process, found[0]
    finally:
        process.kill()
        process.communicate(timeout=10)


@pytest.mark.slow
def test_it_prints_where_it_is_and_ends_quietly_when_it_is_stopped(shelf: Path) -> None:
    with started(str(shelf)) as (process, url):
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        with opener.open(url, timeout=100) as answer:
            assert "token" not in answer.url
            assert b"project/worse" in answer.read()
        assert process.stdout is not None
        # The address for the next browser.
        assert "?token=" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(100) == 0


@pytest.mark.slow
def test_another_port_of_this_machine_is_sent_no_cookie_and_can_set_none(shelf: Path) -> None:
    """A browser sends a cookie to every port of its host: here another server asks for it."""
    got: list[str | None] = []

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            got.append(self.headers["Cookie"])
            self.send_response(200)
            self.send_header("Set-Cookie", f"{name}=mine; Path=/")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    jar = CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    other = HTTPServer(("127.0.0.1", 0), Other)
    asking = threading.Thread(target=other.serve_forever)
    asking.start()
    try:
        with started(str(shelf)) as (_, url):
            with opener.open(url, timeout=100) as answer:
                inside = answer.url
            (one,) = jar
            name = one.name
            for path in ("/", "/run/fine", "/static/x/icon.svg"):
                opener.open(f"http://127.0.0.1:{other.server_port}{path}", timeout=100).close()
            assert one.value not in "".join(str(each) for each in got)
            # What the other set takes nobody's place.
            assert len(jar) == 2
            with opener.open(inside, timeout=100) as answer:
                assert b"project/worse" in answer.read()
            # The cookie without the path, as a thief would have it, opens nothing.
            host = url.partition("/?")[0]
            stolen = urllib.request.Request(f"{host}/", headers={"Cookie": f"{name}={one.value}"})
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(stolen, timeout=100)
    finally:
        other.shutdown()
        asking.join()
        other.server_close()


def test_a_head_that_does_not_come_is_not_waited_for(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers: list[app.BoundedServer] = []

    class Kept(app.BoundedServer):
        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            servers.append(self)

    monkeypatch.setattr(app, "READ_S", 0.2)
    monkeypatch.setattr(app, "BoundedServer", Kept)
    told: queue.Queue[str] = queue.Queue()
    serving = threading.Thread(target=run_dashboard, args=(shelf, 0, None, told.put))
    serving.start()
    try:
        port = urllib.parse.urlsplit(told.get(timeout=100)).port
        with socket.create_connection(("127.0.0.1", port), timeout=100) as link:
            link.sendall(b"GET / HTTP/1.1\r\nHost: 127")
            # Ended by the server: whoever only waits reads no end.
            assert b" 408 " in link.recv(65_536)
    finally:
        servers[0].should_exit = True
        serving.join(100)


def test_a_port_in_use_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MachineError, match="is in use") as refused:
            run_dashboard(tmp_path, port, None, print)
    assert refused.value.exit_code == 2
    assert "--port 0" in refused.value.remedy


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        run_dashboard(tmp_path / "none", 0, None, print)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is not a folder"):
        run_dashboard(tmp_path / "file", 0, None, print)
