"""The service as a Ray Serve deployment answers as the run does, and takes what it is told."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray.serve", reason="needs Ray Serve")

import httpx2 as httpx

from holdfast.core.errors import RecipeError, RunError
from holdfast.plugins.service import on_ray
from holdfast.runs.predictor import Predictor

SOURCE = Path(__file__).resolve().parents[2] / "src"
TEXTS = ["w1 good w2", "w3 bad w4 w5", "w1", ""]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Ray on this machine, without a board or reports of its use, and the port of its proxy."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray import serve

    variables = {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    try:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": variables},
        )
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        serve.start(
            http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR"}
        )
    except (ConnectionError, OSError, RuntimeError) as error:
        ray.shutdown()
        pytest.skip(f"Ray cannot start here: {error}")
    try:
        yield port
    finally:
        serve.shutdown()
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_replica_answers_as_the_run(cluster: int, finished_run: Path, tmp_path: Path) -> None:
    from ray import serve

    # A service makes a reference of the validation rows and leaves it in the folder.
    run, store = Path(shutil.copytree(finished_run, tmp_path / "run")), tmp_path / "store.db"
    told = {"run": str(run), "store": str(store), "set": "serve.max_rows=4"}
    serve.run(on_ray.app(told), name="holdfast")
    here = f"http://127.0.0.1:{cluster}"
    assert httpx.get(f"{here}/health/ready").status_code == 200
    # Ray asks for a replica's health every few seconds.
    import ray

    (actor,) = [
        one
        for one in ray.util.list_named_actors(all_namespaces=True)
        if "SERVE_REPLICA" in one["name"]
    ]
    replica = ray.get_actor(actor["name"], namespace=actor["namespace"])
    ray.get(replica.check_health.remote())
    made = httpx.post(f"{here}/predict", json={"texts": TEXTS})
    assert made.status_code == 200
    predictions = made.json()["predictions"]
    for found, expected in zip(
        predictions, Predictor.load(finished_run).predict(TEXTS), strict=True
    ):
        assert found["prediction"] == expected.prediction
        if expected.confidence is not None:
            assert found["confidence"] == pytest.approx(expected.confidence, abs=1e-5)
    # The settings that it was told are those of the replica.
    assert httpx.post(f"{here}/predict", json={"texts": TEXTS * 2}).status_code == 400


def test_a_replica_watches_for_drift_as_a_service_does(finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    for asked, watched in (({}, ["drift"]), ({"set": "serve.drift=false"}, [])):
        service = on_ray.Replica.of({"run": str(run), **asked}).service
        for one in threading.enumerate():
            if one.name == "afterwards":
                one.join(60)
        try:
            assert [one.name for one in service.observer_thread.observers] == watched
        finally:
            service.close()


def test_what_it_is_not_told_so_is_refused_before_anything_starts(
    finished_run: Path, tmp_path: Path
) -> None:
    for told, rule in (
        ({}, "run=FOLDER"),
        ({"run": str(finished_run), "replica": "2"}, "unknown argument"),
        ({"run": str(finished_run), "replicas": "none"}, "whole number"),
        ({"run": str(finished_run), "set": "serve.max_row=3"}, "unknown key"),
    ):
        with pytest.raises(RecipeError, match=rule):
            on_ray.app(told)
    with pytest.raises(RunError):
        on_ray.app({"run": str(tmp_path)})


@pytest.mark.parametrize(
    ("client", "answered"),
    [("127.0.0.1", True), ("::1", True), ("192.0.2.7", False), ("nobody", False), (None, False)],
)
def test_without_a_token_only_this_machine_is_answered(client: str | None, answered: bool) -> None:
    import asyncio

    seen: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append("answered")

    async def send(message: Any) -> None:
        seen.append(message.get("status"))

    scope = {"type": "http", "client": None if client is None else (client, 1)}
    asyncio.run(on_ray._local_only(application)(scope, None, send))
    assert (seen == ["answered"]) == answered
    assert answered or seen[0] == 403
