"""Runs that set no row aside, as a user types them: trained, resumed, asked, read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.runs.finished_run import FinishedRun

ROWS = 60
SHORT = ["--set", "train.evaluations=2", "--set", "methods.contrast.steps=4"]


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory, marked_rows: Any, write_csv: Any) -> Path:
    path: Path = write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", marked_rows(ROWS))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["train.folds=2"], "on the same rows (2 folds)"),
        (["train.folds=2", "data.split.test=0"], "(5 outer folds)"),
        (["data.split.test=0"], "(5 outer folds)"),
    ],
)
def test_such_a_run_is_used_as_any_other(
    asked: list[str],
    words: str,
    csv: Path,
    sets: Any,
    holdfast: Any,
    tmp_path: Path,
    own_verdict: Any,
) -> None:
    run = tmp_path / "run"
    more = [part for one in asked for part in ("--set", one)]
    done = holdfast("train", csv, "--out", run, *sets, *SHORT, *more, "--json")
    assert done.code == 0, done.err
    assert ("fold 2 of 2" in done.err) is ("train.folds=2" in asked)
    assert ("outer fold 5 of 5" in done.err) is ("data.split.test=0" in asked)
    result = json.loads(done.out)
    assert result["valid"].get("out_of_fold", False) is ("train.folds=2" in asked)
    assert result["test"].get("out_of_fold", False) is ("data.split.test=0" in asked)
    own_verdict(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    done = holdfast("train", csv, "--out", run, "--resume", "--quiet")
    assert done.code == 0, done.err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert words in (run / "report.html").read_text("utf-8")
    done = holdfast("report", run)
    assert done.code == 0, done.err
    done = holdfast("evaluate", run, csv, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["n"] == ROWS
    done = holdfast("predict", run, csv)
    assert len(done.out.splitlines()) == ROWS
    if result["test"].get("out_of_fold"):
        its_predictions_are_no_test_rows(run, holdfast, tmp_path)


def its_predictions_are_no_test_rows(run: Path, holdfast: Any, tmp_path: Path) -> None:
    """Other models than the saved one made them, from rows that the saved one was trained on."""
    finished = FinishedRun(run)
    assert finished.n_test == len(finished.test) == len(finished.stored("test")) == 0
    for code, said, *words in (
        (0, "guarantee", "threshold", run, "--coverage", "0.5"),
        (0, "training rows", "report", run, "--page", tmp_path / "page.html"),
        (0, "", "errors", run),
        (0, "none were set aside", "probe", run),
        (2, "has none", "errors", run, "--robustness"),
        (2, "has no test rows", "fairness", run),
        (2, "has no test rows", "compare", run, run),
        (2, "has no test rows", "distill", run, "--out", tmp_path / "student"),
        (2, "has no test set", "update", run, "--feedback", run / "predictions.parquet"),
    ):
        done = holdfast(*words)
        assert done.code == code, (words, done.out, done.err)
        assert said in (done.out + done.err).lower(), (words, done.out, done.err)


def test_the_plan_says_how_rows_are_used(csv: Path, sets: Any, holdfast: Any) -> None:
    asked = ["--set", "train.folds=3", "--set", "data.split.test=0", "--dry-run", "--json"]
    done = holdfast("train", csv, *sets, *SHORT, *asked)
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    assert plan["division"] == {"train": ROWS, "valid": 0, "test": 0}
    chosen = {decision["what"]: decision["chosen"] for decision in plan["decisions"]}
    assert chosen["cross-fitting"] == "3 folds"
    assert chosen["score"] == "5 outer folds"


@pytest.mark.slow
def test_a_setting_that_turns_cross_fitting_off_is_named(csv: Path, holdfast: Any) -> None:
    asked = ("--model", "embedded", "--dry-run", "--json")
    plans = [
        json.loads(holdfast("train", csv, *asked, *more).out)
        for more in ((), ("--set", "train.max_steps=8"))
    ]
    chosen, limited = (
        {one["what"]: one for one in plan["decisions"]}["cross-fitting"] for plan in plans
    )
    assert chosen["chosen"] == "2 folds"
    assert limited["chosen"] == "off"
    assert "not benchmarked with train.max_steps, so the" in limited["because"]


def test_what_cannot_be_is_refused_before_anything_is_written(
    csv: Path, sets: Any, holdfast: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for asked, words in (
        (["train.folds=1"], "train.folds"),
        (["train.folds=30"], "train.folds"),
        (["train.folds=3", "train.max_minutes=1"], "train.max_minutes"),
        (["train.folds=3", "control.policy=mine.py:Own"], "control.policy=mine.py:Own"),
        (["data.split.test=0", "train.max_minutes=1"], "data.split.test"),
        (["data.split.test=0", "task=seq2seq"], "data.split.test"),
    ):
        more = [part for one in asked for part in ("--set", one)]
        done = holdfast("train", csv, "--out", run, *sets, *more)
        assert done.code == 2, (asked, done.err)
        assert words in done.err
        assert "Traceback" not in done.err
        assert not run.exists()
