"""Two processes that serve one run over one store: either takes what the other answered."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("httpx2")

import httpx2 as httpx

from holdfast.plugins.store.store import open_store

# What ``holdfast serve`` puts on a socket, without its command line.
PROGRAM = """
import socket, sys, uvicorn
from holdfast.plugins.service.on_ray import Replica
replica = Replica.of({"run": sys.argv[1], "store": sys.argv[2], "threads": "1"})
bound = socket.create_server(("127.0.0.1", 0))
print(bound.getsockname()[1], flush=True)
config = uvicorn.Config(replica.application, lifespan="off", log_level="critical")
try:
    uvicorn.Server(config).run(sockets=[bound])
finally:
    replica.service.close()
"""


@contextmanager
def replica(run: Path, store: Path) -> Iterator[Any]:
    """A process; its output's first line is its port."""
    command = [sys.executable, "-c", PROGRAM, str(run), str(store)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(100)
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.slow
def test_feedback_may_reach_the_other_replica_and_one_may_end(
    finished_run: Path, tmp_path: Path
) -> None:
    run, store = tmp_path / "run", tmp_path / "store.db"
    # The first request makes a reference of the validation rows and leaves it in the folder.
    shutil.copytree(finished_run, run)
    with ExitStack() as both:
        processes = [both.enter_context(replica(run, store)) for _ in range(2)]
        here = [f"http://127.0.0.1:{process.stdout.readline().strip()}" for process in processes]
        answers = [
            httpx.post(f"{url}/predict", json={"texts": ["w1 good w2", "w3 bad"], "user": "ada"})
            for url in (*here, *here)
        ]
        assert [answer.status_code for answer in answers] == [200] * 4
        said = [answer.json() for answer in answers]
        assert all(one["predictions"] == said[0]["predictions"] for one in said)
        assert len({one["model"] for one in said}) == 1
        for place, one in enumerate(said):
            # Each label goes to the one that did not answer.
            label = {"id": one["id"], "index": 1, "label": "no", "who": f"reader {place}"}
            other = here[1 - place % 2]
            until = time.monotonic() + 100
            while (given := httpx.post(f"{other}/feedback", json=label)).status_code == 404:
                assert time.monotonic() < until
                time.sleep(0.05)
            assert given.status_code == 200, given.text
        processes[0].send_signal(signal.SIGTERM)
        assert processes[0].wait(100) in (0, -signal.SIGTERM)
        after = httpx.post(f"{here[1]}/predict", json={"texts": ["w1 good w2", "w3 bad"]})
        assert after.json()["predictions"] == said[0]["predictions"]
        processes[1].send_signal(signal.SIGTERM)
        processes[1].wait(100)
    opened = open_store(str(store))
    requests = {one.id: one for one in opened.requests()}
    assert set(requests) == {one["id"] for one in (*said, after.json())}
    assert len({requests[one["id"]].user for one in said}) == 1
    labels = opened.feedback()
    assert [(one.request, one.index, one.who) for one in labels] == [
        (one["id"], 1, f"reader {place}") for place, one in enumerate(said)
    ]
    assert {one.model for one in labels} == {said[0]["model"]}
    opened.close()
