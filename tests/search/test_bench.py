"""Fits of a search: each is the one fit, is carried out once, and may be ended by a watch."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from holdfast.core.decisions import decisions_to
from holdfast.core.records import Decision, Snapshot
from holdfast.fits.fit import fit
from holdfast.fits.row_use import LearningRows, learning_rows
from holdfast.pipeline.main import train
from holdfast.prepare.rows import load_and_divide
from holdfast.recipe import Recipe, override
from holdfast.search import context as benches
from holdfast.search.context import SearchContext, run_job
from holdfast.search.job import FitJob, FitResult, FitStore
from holdfast.search.learner import make_engine


def own(bench: SearchContext, key: str = "trial-0", **settings: Any) -> FitJob:
    """A job on the run's own division, of which a fifth is held out."""
    held = bench.train[::5]
    learned = np.setdiff1d(bench.train, held)
    return FitJob(
        key, learned, bench.valid, held, {k.replace("__", "."): v for k, v in settings.items()}
    )


def same(a: FitResult, b: FitResult) -> None:
    assert np.array_equal(a.losses, b.losses)
    assert np.array_equal(a.evaluations.losses, b.evaluations.losses)
    assert (a.key, a.settings, a.best, a.best_step) == (b.key, b.settings, b.best, b.best_step)
    assert a.verdict == b.verdict
    assert (a.held_out is None) == (b.held_out is None)
    if a.held_out is not None and b.held_out is not None:
        assert a.held_out.predictions.equals(b.held_out.predictions)
        assert a.held_out.scores == b.held_out.scores


@pytest.fixture(scope="module")
def done(bench: SearchContext) -> FitResult:
    return run_job(bench, own(bench))


def test_a_job_is_the_one_fit(bench: SearchContext, done: FitResult) -> None:
    job = own(bench)
    fitted = fit(bench.extended({}, job.train, job.valid), job.train, job.valid)
    assert np.array_equal(done.losses, fitted.best_evaluation.valid_losses)
    assert done.best_step == fitted.trained.best_step
    assert done.evaluations.losses.shape == (len(fitted.trained.history), len(bench.valid))
    assert done.best is not None
    assert np.array_equal(done.evaluations.losses[done.best], done.losses)


def test_held_rows_are_answered_by_a_model_that_did_not_see_them(
    bench: SearchContext, done: FitResult
) -> None:
    assert done.held_out is not None
    table = bench.rows.take(own(bench).held_out)
    answers = done.held_out.predictions
    assert answers["row"].to_pylist() == table.column("row").tolist()
    names = list(table.classes)
    labels = [names[i] for i in table.column("label")]
    assert answers["label"].to_pylist() == labels
    shown = done.held_out.scores["metrics"]
    expected = accuracy_score(labels, answers["prediction"].to_pylist())
    assert shown["accuracy"]["value"] == pytest.approx(expected)
    chances = np.array(answers["probabilities"].to_pylist())
    assert shown["loss"]["value"] == pytest.approx(log_loss(labels, chances, labels=names))


def test_a_setting_that_the_model_is_prepared_with_prepares_it_anew(bench: SearchContext) -> None:
    plain, other = bench.prepared({}), bench.prepared({"model.dropout": 0.3})
    assert other is not plain
    assert bench.prepared({"model.dropout": 0.3, "train.epochs": 1}) is other
    assert {m.p for m in other.loaded.network.modules() if isinstance(m, torch.nn.Dropout)} == {0.3}
    held = run_job(bench, own(bench, model__dropout=0.3, train__epochs=1))
    assert held.recipe["model"]["dropout"] == 0.3
    assert held.recipe["train"]["epochs"] == 1


def test_a_bench_in_another_process_gives_the_same(bench: SearchContext, done: FitResult) -> None:
    there: SearchContext = pickle.loads(pickle.dumps(bench))
    assert there.fingerprint == bench.fingerprint
    same(run_job(there, own(bench)), done)


def test_what_was_done_is_read_and_not_done_again(
    bench: SearchContext, done: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, job = FitStore(tmp_path, bench.fingerprint), own(bench)
    assert store.load(job) is None
    store.save(job, done)
    found = store.load(job)
    assert found is not None
    same(found, done)

    def never(*_: Any) -> FitResult:
        raise AssertionError("done again")

    monkeypatch.setattr("holdfast.search.learner.run_job", never)
    (again,) = make_engine("local").run(bench, iter([job]), store=store)
    same(again, done)
    # Of other settings, of other rows, on another bench: not the same job.
    assert store.load(own(bench, train__epochs=1)) is None
    assert store.load(FitJob(job.key, job.train, job.valid, job.held_out[:3])) is None
    assert FitStore(tmp_path, "another").load(job) is None


def test_a_damaged_fit_is_done_again_and_said(
    bench: SearchContext, done: FitResult, tmp_path: Path
) -> None:
    told: list[Decision] = []
    store, job = FitStore(tmp_path, bench.fingerprint), own(bench)
    store.save(job, done)
    (path,) = tmp_path.rglob("*.pt")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with decisions_to(told.append):
        assert store.load(job) is None
    assert [one.chosen for one in told] == ["not used"]


class Ends:
    """Ends one job at its second look."""

    def __init__(self, key: str) -> None:
        self.key, self.heard = key, [""]

    def stop_reason(self, key: str, look: Snapshot) -> str | None:
        self.heard.append(key)
        return "no better than another" if key == self.key and look.step else None


def test_a_watch_ends_the_job_that_it_means(bench: SearchContext, tmp_path: Path) -> None:
    watch = Ends("trial-1")
    store = FitStore(tmp_path, bench.fingerprint)
    some = iter([own(bench, f"trial-{i}", train__epochs=4) for i in range(2)])
    whole, cut = make_engine("local").run(bench, some, store=store, watch=watch)
    assert whole.stopped is None
    assert whole.last_step == whole.planned
    assert cut.stopped == cut.ended == "no better than another"
    assert cut.last_step == cut.evaluations.steps[-1] < cut.planned
    assert np.array_equal(
        cut.evaluations.losses, whole.evaluations.losses[: len(cut.evaluations.losses)]
    )


def test_the_next_job_is_asked_for_when_the_one_before_is_done(bench: SearchContext) -> None:
    asked: list[int] = []
    seen: list[int] = []

    def lazily() -> Any:
        for i in range(3):
            asked.append(len(seen))
            yield own(bench, f"trial-{i}", train__epochs=1)

    for _ in make_engine("local").run(bench, lazily(), store=FitStore(None, "")):
        seen.append(1)
    assert asked == [0, 1, 2]


def test_each_fit_of_a_cross_fitted_run_is_cross_fitted(search_recipe: Recipe) -> None:
    recipe = search_recipe.with_changes(train={"folds": 2})
    divided = load_and_divide(recipe)
    learning = learning_rows(divided.recipe, divided)
    bench = SearchContext.from_learning_rows(learning)
    done = run_job(bench, FitJob("trial-0", bench.train, bench.valid, bench.train[:0]))
    assert done.losses.shape == bench.train.shape
    assert done.last_step <= done.planned


class Best:
    """A procedure: the best of three rates, then the run."""

    name = "tune"

    def checked_recipe(self, recipe: Recipe) -> Recipe:
        return recipe

    def describe(self) -> dict[str, Any]:
        return {"rates": [1e-4, 1e-3, 5e-3]}

    def learn(self, recipe: Recipe, divided: Any) -> Any:
        return OfBest(learning_rows(recipe, divided))


class OfBest:
    def __init__(self, learning: LearningRows) -> None:
        self.learning, self.divided = learning, learning.divided
        self.found: dict[str, float] = {}

    def fit(self, into: Any, listeners: Any) -> Any:
        bench = SearchContext.from_learning_rows(self.learning)
        store = FitStore(into.checkpoints, bench.fingerprint)
        none = bench.train[:0]
        rates = Best().describe()["rates"]
        some = (
            FitJob(f"rate-{i}", bench.train, bench.valid, none, {"train.learning_rate": rate})
            for i, rate in enumerate(rates)
        )
        for done in make_engine("local").run(bench, some, store=store):
            self.found[done.key] = float(done.losses.mean())
        best = rates[min(range(3), key=lambda i: self.found[f"rate-{i}"])]
        prepared = self.learning.prepared
        return fit(
            prepared,
            bench.train,
            bench.valid,
            {"train.learning_rate": best},
            into=into,
            listeners=listeners,
        )

    def blocks(self) -> dict[str, Any]:
        return {"study": dict(self.found)}


def test_a_study_is_of_its_rows_and_of_who_judges(bench: SearchContext) -> None:
    """Whoever continues a study compares losses row by row."""
    other = replace(bench, train=np.append(bench.train[1:], bench.valid[0]), valid=bench.valid[1:])
    faster = replace(bench, recipe=override(bench.recipe, ["train.threads=3"]))
    longer = replace(bench, recipe=override(bench.recipe, ["train.epochs=9"]))
    assert other.study_fingerprint != bench.study_fingerprint
    assert longer.study_fingerprint != bench.study_fingerprint
    assert faster.study_fingerprint == bench.study_fingerprint


@pytest.mark.slow
def test_a_procedure_is_a_run_like_any_other(search_recipe: Recipe, tmp_path: Path) -> None:
    import yaml

    run = tmp_path / "run"
    told = search_recipe.with_changes(alert={"command": "exit 0 # a secret"})
    result = train(told, run, procedure=Best())
    assert set(result["study"]) == {"rate-0", "rate-1", "rate-2"}
    assert result["test"]["n"] > 0
    assert not (run / "checkpoints").exists()
    assert (run / "report.html").exists()
    kept = yaml.safe_load((run / "search.yaml").read_text())
    assert kept["command"] == "tune"
    assert kept["rates"] == [1e-4, 1e-3, 5e-3]
    with_secret = [
        path.name for path in run.rglob("*") if path.is_file() and b"a secret" in path.read_bytes()
    ]
    assert with_secret == ["recipe.yaml"]
    # The recipe is that of the model that is kept, and repeats it.
    from holdfast.recipe import read_recipe

    again = train(read_recipe(run / "recipe.yaml"), tmp_path / "again")
    assert again["test"] | {"opened_at": 0} == result["test"] | {"opened_at": 0}


@pytest.mark.slow
def test_a_killed_procedure_goes_on_and_repeats_no_fit(
    search_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: Any
) -> None:
    whole = train(search_recipe, tmp_path / "whole", procedure=Best())
    run, made = tmp_path / "killed", []
    real = benches.run_job

    def dies(bench: SearchContext, job: FitJob, *rest: Any) -> FitResult:
        if job.key == "rate-2" and "dead" not in made:
            made.append("dead")
            raise killed
        made.append(job.key)
        return real(bench, job, *rest)

    monkeypatch.setattr("holdfast.search.learner.run_job", dies)
    with pytest.raises(killed):
        train(search_recipe, run, procedure=Best())
    from holdfast.core.errors import RunError

    with pytest.raises(RunError, match="was begun by `holdfast tune`"):
        train(search_recipe, run, resume=True)
    other = search_recipe.with_changes(train={"epochs": 1})
    result = train(other, run, resume=True, procedure=Best())
    assert made == ["rate-0", "rate-1", "dead", "rate-2"]
    assert result["study"] == whole["study"]
    same_test = result["test"] | {"opened_at": 0}
    assert same_test == whole["test"] | {"opened_at": 0}


def test_another_command_does_not_finish_what_train_began(
    search_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: Any
) -> None:
    from holdfast.core.errors import RunError

    def dies(*_: Any, **__: Any) -> None:
        raise killed

    monkeypatch.setattr("holdfast.pipeline.main.score_once", dies)
    with pytest.raises(killed):
        train(search_recipe, tmp_path / "run")
    with pytest.raises(RunError, match="begun by `holdfast train`, so `holdfast tune`"):
        train(search_recipe, tmp_path / "run", resume=True, procedure=Best())
