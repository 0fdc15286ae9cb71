"""Fits on a local Ray: the same as here, whatever happens to a worker."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.core.decisions import decisions_to
from holdfast.core.errors import MachineError, RecipeError
from holdfast.core.records import Decision, Snapshot
from holdfast.models.compute.processor import quick_dropout
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe
from holdfast.search.context import SearchContext
from holdfast.search.job import FitJob, FitResult, FitStore
from holdfast.search.learner import FitEngine, make_engine
from holdfast.search.trial_plan import SearchPart
from holdfast.search.tune import Tune
from holdfast.training.machine.machine import flushed_subnormals

psutil = pytest.importorskip("psutil")
ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def there() -> Iterator[FitEngine]:
    try:
        yield make_engine("ray")
    finally:
        ray.shutdown()


def some(bench: SearchContext, rates: tuple[float, ...] = (1e-3, 3e-3)) -> list[FitJob]:
    held = bench.train[:6]
    return [
        FitJob(f"trial-{i}", bench.train[6:], bench.valid, held, {"train.learning_rate": rate})
        for i, rate in enumerate(rates)
    ]


class Kills:
    """Kills the worker of one fit at its second look, once."""

    def __init__(self, key: str) -> None:
        self.key, self.killed = key, 0

    def stop_reason(self, key: str, look: Snapshot) -> str | None:
        if key == "trial-2" and look.step:
            return "not needed"
        if key == self.key and look.step and not self.killed:
            self.killed += 1
            for process in psutil.Process().children(recursive=True):
                # One that ended, and that nobody waited for, has no command line any more.
                with contextlib.suppress(psutil.ZombieProcess):
                    if any("_run_in_worker" in part for part in process.cmdline()):
                        os.kill(process.pid, signal.SIGKILL)
        return None


@pytest.mark.slow
def test_fits_on_ray_are_those_made_here_and_a_killed_worker_costs_its_time_alone(
    bench: SearchContext, there: FitEngine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = some(bench, (1e-3, 3e-3, 5e-3))
    told: list[Decision] = []
    watch = Kills("trial-1")
    store = FitStore(tmp_path, bench.fingerprint)
    with decisions_to(told.append):
        done = list(there.run(bench, iter(jobs), store=store, watch=watch))
    found = {one.key: one for one in done}
    assert watch.killed == 1
    assert not ray.is_initialized()
    assert capfd.readouterr().out == ""
    assert "begun again" in [one.chosen for one in told]
    here: dict[str, FitResult] = {}
    # As every run has it.
    with flushed_subnormals(), quick_dropout():
        for done in make_engine("local").run(bench, iter(jobs[:2]), store=FitStore(None, "")):
            here[done.key] = done
    assert set(found) == {"trial-0", "trial-1", "trial-2"}
    for key, done in here.items():
        assert np.array_equal(done.losses, found[key].losses)
        assert np.array_equal(done.evaluations.losses, found[key].evaluations.losses)
        assert done.held_out is not None
        assert found[key].held_out is not None
        assert done.held_out.predictions.equals(found[key].held_out.predictions)  # type: ignore[union-attr]
    assert found["trial-2"].stopped == "not needed"
    # What is done is read, and no worker is asked.
    again = list(there.run(bench, iter(jobs), store=store))
    assert sorted(done.key for done in again) == sorted(found)


@pytest.mark.slow
def test_what_is_wrong_with_a_setting_is_said_as_here(
    bench: SearchContext, there: FitEngine
) -> None:
    wrong = FitJob("trial-0", bench.train, bench.valid, bench.train[:0], {"methods.sam.rho": -1})
    with pytest.raises(RecipeError, match="sam"):
        list(there.run(bench, iter([wrong]), store=FitStore(None, "")))


def test_a_cluster_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.duplicates import engines

    def nobody(**_: Any) -> None:
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", nobody)
    with pytest.raises(MachineError, match="cannot be started or reached"):
        engines.connect_ray("127.0.0.1:1")


def test_an_engine_and_an_address_must_go_together() -> None:
    with pytest.raises(RecipeError, match="local, ray"):
        make_engine("spark")
    with pytest.raises(RecipeError, match="the engine is local"):
        make_engine("local", "10.0.0.1:6379")


@pytest.mark.slow
def test_a_search_finds_on_ray_what_it_finds_here(search_recipe: Recipe, tmp_path: Path) -> None:
    """One command for all: whoever asks for fits asks the same engine."""
    found = {}
    for engine in ("local", "ray"):
        ranges = {"train.learning_rate": {"range": [1e-4, 1e-2], "log": True}}
        procedure = Tune(ranges, SearchPart(sampler="random", trials=2), engine=engine)
        recipe = search_recipe.with_changes(train={"epochs": 1})
        result = train(recipe, tmp_path / engine, procedure=procedure)
        block, timed = result["study"], ("seconds", "latency_ms")
        kept = [{k: v for k, v in row.items() if k not in timed} for row in block["trials_table"]]
        found[engine] = (kept, block["expected_test"], result["test"] | {"opened_at": None})
    assert not ray.is_initialized()
    assert found["ray"] == found["local"]
