"""Tests of the room ``dashboard/``: synthetic runs, and pages asked as a browser asks them."""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PORT = 8081
BASE = f"http://127.0.0.1:{PORT}"


@pytest.fixture(scope="session")
def runs() -> ModuleType:
    """``tests/report/make_run.py``."""
    path = Path(__file__).parents[1] / "report" / "make_run.py"
    spec = importlib.util.spec_from_file_location("holdfast_tests_make_run_dashboard", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def unfinished(runs: ModuleType) -> Callable[..., Path]:
    """Make a run that is not finished; with ``pid`` the process that is at it since ``since``."""

    def make(folder: Path, pid: int | None = None, since: str = "", **how: Any) -> Path:
        run = runs.make_run(folder, **how)
        (run / "result.json").unlink()
        if pid is not None:
            since = since or datetime.now().astimezone().isoformat(timespec="seconds")
            holder = {"pid": pid, "host": socket.gethostname(), "since": since}
            (run / ".lock").write_text(json.dumps(holder), encoding="utf-8")
        return run

    return make


@pytest.fixture(scope="session")
def shelf(
    runs: ModuleType, unfinished: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder of runs of every kind, to be read only."""
    root = tmp_path_factory.mktemp("shelf")
    runs.make_run(root / "fine", classes=3)
    runs.make_run(root / "project" / "worse", classes=3, verdict="overfit", seed=1)
    runs.make_run(root / "<img src=x onerror=alert(1)>", classes=12, names=runs.HOSTILE)
    unfinished(root / "stopped", classes=3, looks=5)
    unfinished(root / "going", pid=1, classes=3, looks=6)
    damaged = runs.make_run(root / "damaged", classes=2)
    (damaged / "result.json").write_bytes(b"\x00\xff{<script>alert(1)</script>")
    (root / "notes").mkdir()
    (root / "notes" / "todo.txt").write_text("no run", encoding="utf-8")
    (root / "out").symlink_to("/etc")
    return root


@pytest.fixture
def asked(shelf: Path) -> Iterator[Any]:
    """A client that has come in, with ``dashboard`` and ``access`` beside it."""
    with client_of(shelf) as client:
        yield client


def client_of(root: Path, store: Any = None, come_in: bool = True) -> Any:
    from starlette.testclient import TestClient

    from holdfast.plugins.dashboard.access import Access
    from holdfast.plugins.dashboard.app import application
    from holdfast.plugins.dashboard.resources import Dashboard
    from holdfast.plugins.dashboard.runs import Runs

    dashboard = Dashboard(Runs(root), Access(PORT), store)
    client = TestClient(application(dashboard), base_url=BASE, follow_redirects=False)
    client.dashboard = dashboard  # type: ignore[attr-defined]
    if come_in:
        client.get(dashboard.access.url)
        client.base_url = BASE + dashboard.access.base  # type: ignore[assignment]
    return client


@pytest.fixture(scope="session")
def open_client() -> Callable[..., Any]:
    """``client_of``."""
    return client_of
