"""The command as a shell runs it: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from holdfast.core.errors import MachineError, RunError
from holdfast.dashboard.start import run_dashboard

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
