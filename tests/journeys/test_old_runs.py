"""Runs and recipes of an older version: one of each task, with what the commands of then said of
them (``old_runs/make.py`` made them)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import holdfast

TASKS = ("classes", "several", "number", "seq2seq", "causal", "pictures")
# Of one probability between two processors; what was kept has six digits.
CLOSE = 1e-4
# A written text is a chain of choices, and one near-tie that another processor's last digits tip
# makes it another; most stay.
WRITTEN, MOST_STAY = ("seq2seq", "causal"), 9


@pytest.fixture(scope="module")
def old(old_runs: Path) -> Path:
    return old_runs


def new_rows(old: Path, task: str) -> Path:
    return old / "rows" / ("pictures-new" if task == "pictures" else f"{task}-new.jsonl")


def said(old: Path, task: str, name: str) -> Any:
    text = (old / "said" / task / name).read_text("utf-8")
    return [json.loads(row) for row in text.splitlines()] if "jsonl" in name else json.loads(text)


def same_numbers(found: Any, expected: Any, where: str = "") -> None:
    """Equal but for the last digits of numbers, and for how a note on one is worded."""
    if isinstance(expected, dict):
        assert found.keys() >= expected.keys(), where
        for key in expected.keys() - {"note"}:
            same_numbers(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, float) and found is not None:
        assert found == pytest.approx(expected, rel=CLOSE, abs=CLOSE), where
    else:
        assert found == expected, where


@pytest.mark.parametrize("task", TASKS)
def test_an_old_run_answers_as_it_did(old: Path, task: str, holdfast: Callable[..., Any]) -> None:
    done = holdfast("predict", old / "runs" / task, new_rows(old, task), "--quiet")
    assert done.code == 0, done.err
    found = [json.loads(row) for row in done.out.splitlines()]
    expected = said(old, task, "predict.jsonl")
    assert len(found) == len(expected) == 12
    if task in WRITTEN:
        texts = [[row["prediction"] for row in rows] for rows in (found, expected)]
        assert sum(map(str.__eq__, *texts)) >= MOST_STAY
        return
    for one, other in zip(found, expected, strict=True):
        same_numbers(one, other)


@pytest.mark.parametrize("task", TASKS)
def test_an_old_run_is_scored_as_it_was(old: Path, task: str, holdfast: Callable[..., Any]) -> None:
    done = holdfast("evaluate", old / "runs" / task, new_rows(old, task), "--json", "--quiet")
    assert done.code == 0, done.err
    found, expected = json.loads(done.out), said(old, task, "evaluate.json")
    assert found["metrics"].keys() == expected["metrics"].keys()
    # Older versions called the mean over rows the loss.
    measured = ("token_loss",) if task in WRITTEN else tuple(expected["metrics"])
    for name in measured:
        one, other = found["metrics"][name], dict(expected["metrics"][name])
        if other["low"] is not None and other["low"] == other["high"]:
            # And gave an interval without width where every resample gave the same.
            assert one["low"] <= other["low"] <= one["high"]
            assert one["value"] == pytest.approx(other["value"], rel=1e-4)
            continue
        same_numbers(one, other, name)
    assert found["n"] == expected["n"] == 12
    assert found["seen"]["train"]["n"] == expected["seen"]["train"]["n"]


@pytest.mark.parametrize("task", TASKS)
def test_an_old_run_keeps_its_verdict(old: Path, task: str, holdfast: Callable[..., Any]) -> None:
    done = holdfast("diagnose", old / "runs" / task, "--json")
    assert done.code == 0, done.err
    found, expected = json.loads(done.out), said(old, task, "diagnose.json")
    if task == "pictures":
        # All its rows are right: the cause is not "too few rows", as older versions said.
        expected["verdict"]["cause"] = None
    for name in ("label", "since_step", "cause", "confidence"):
        same_numbers(found["verdict"][name], expected["verdict"][name], name)
    assert found["best_step"] == expected["best_step"]
    assert found["points"] == expected["points"]


@pytest.mark.parametrize("task", TASKS)
def test_an_old_run_is_reported(old: Path, task: str, holdfast: Callable[..., Any]) -> None:
    done = holdfast("report", old / "runs" / task)
    assert done.code == 0, done.err
    page = (old / "runs" / task / "report.html").read_text("utf-8")
    assert "<svg" in page
    assert said(old, task, "diagnose.json")["verdict"]["label"] in page


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_python_program_uses_an_old_run(old: Path, task: str) -> None:
    run = holdfast.TrainedRun(old / "runs" / task)
    answers = [row["prediction"] for row in said(old, task, "predict.jsonl")]
    found = run.predict(new_rows(old, task))
    if task in WRITTEN:
        assert sum(map(str.__eq__, found, answers)) >= MOST_STAY
    else:
        for one, expected in zip(found, answers, strict=True):
            same_numbers(one, expected)
    assert run.model.training is False
    assert type(run.model).__module__.startswith("transformers.")


@pytest.mark.parametrize("task", TASKS)
def test_an_old_recipe_and_that_of_an_old_run_are_the_same_run(old: Path, task: str) -> None:
    from holdfast.recipe import read_recipe

    written = read_recipe(old / f"{task}.yaml")
    stored = read_recipe(old / "runs" / task / "recipe.yaml")
    assert Path(str(stored.data.path)).name == Path(str(written.data.path)).name
    assert str(written.data.path).startswith(str(old))
    assert written.task in (None, stored.task)
    assert (written.train.max_steps, written.train.learning_rate) == (12, 1e-3)
    assert stored.train.learning_rate == 1e-3
    assert stored.data.label_kind == {
        "classes": "class",
        "several": "several",
        "number": "number",
    }.get(task)  # what text classification writes alone


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["classes.yaml", "runs/classes/recipe.yaml"])
def test_an_old_recipe_trains(
    old: Path, recipe: str, tiny_model: Path, holdfast: Callable[..., Any], tmp_path: Path
) -> None:
    given = ["--set", f"model.name={tiny_model}", "--set", f"data.path={old}/rows/classes.jsonl"]
    done = holdfast("train", old / recipe, "--out", tmp_path / "r", "--json", "--quiet", *given)
    assert done.code == 0, done.err
    found, before = (
        json.loads(done.out),
        json.loads((old / "runs/classes/result.json").read_text()),
    )
    assert found["classes"] == before["classes"] == ["no", "yes"]
    for side in ("train", "valid", "test"):
        assert found["data"][side] == before["data"][side]
    assert found["settings"]["train"]["learning_rate"] == 1e-3
