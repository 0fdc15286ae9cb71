"""A defect in a detail of what a run writes costs that detail, and never the trained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.contract import result as outcome
from holdfast.core import shapes
from holdfast.core.decisions import decisions_to
from holdfast.core.errors import Defect
from holdfast.core.records import Decision, Evidence
from holdfast.core.run_files import check_model, read_events, read_result, seal_model, write_result
from holdfast.pipeline import main
from holdfast.recipe import Recipe, override
from holdfast.runs import scoring
from holdfast.training.journal import Journal

GOOD = {
    "schema": 1,
    "task": "text-classification",
    "classes": ["a", "b"],
    "verdict": {
        "label": "healthy",
        "because": "x",
        "confidence": 0.5,
        "evidence": [
            {"name": "one", "value": 1.0, "low": None, "high": 2.0},
            {"value": 2.0},
            {"name": "three", "value": 10**400},
        ],
    },
    "decisions": [{"what": "seed", "chosen": "0", "because": "it is the default"}],
}

WRITTEN = ("result.json", "report.html")


@pytest.fixture
def survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user has it: the tests' own setting lets every defect end the program."""
    monkeypatch.setenv("HOLDFAST_DEFECTS", "")


def run_folder(folder: Path) -> Path:
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    return folder


@pytest.mark.usefixtures("survived")
def test_a_result_keeps_all_but_what_its_readers_would_refuse(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    told = write_result(run, {**GOOD, "free": {"x": object}}, seal_model(run))
    found = read_result(run)
    assert [one["name"] for one in found["verdict"]["evidence"]] == ["one", "three"]
    assert found["verdict"]["evidence"][0]["high"] == 2.0
    assert "value" not in found["verdict"]["evidence"][1]
    assert found["free"] == {"x": None}
    assert found["decisions"][0] == GOOD["decisions"][0]  # type: ignore[index]
    # The details are named to whoever waits and to whoever reads, and the seal holds.
    assert [one["because"] for one in found["decisions"][1:]] == [one.because for one in told]
    assert all(one.prominent for one in told)
    said = " ".join(one.because for one in told)
    for what in ("evidence[1].name is missing", "evidence[1].value must be", "no form in JSON"):
        assert what in said
    check_model(run, found)


@pytest.mark.usefixtures("survived")
def test_of_too_many_values_the_largest_table_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "MOST_VALUES", 300)
    counts = {"classes": ["a", "b"], "counts": [[1] * 20] * 20}
    result = {**GOOD, "verdict": {}, "test": {"n": 400, "metrics": {}, "confusion": counts}}
    result.pop("verdict")
    (told,) = write_result(run_folder(tmp_path), result)
    assert "test.confusion.counts is null" in told.because
    assert read_result(tmp_path)["test"] == {
        "n": 400,
        "metrics": {},
        "confusion": {"classes": ["a", "b"], "counts": None},
    }


def test_in_a_test_such_a_detail_is_a_failure(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    for result in (GOOD, {**GOOD, "verdict": None}, {"schema": 1, "x": object}, {"task": "x"}):
        with pytest.raises(Defect):
            write_result(run, result)
    with pytest.raises(Defect, match="step must be"):
        Journal(run).write("action", 1.5, action="Stop")  # type: ignore[arg-type]
    assert not (run / "result.json").exists()


@pytest.mark.usefixtures("survived")
def test_a_line_of_the_journal_is_one_that_is_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(
        "verdict",
        3,
        label="healthy",
        because="x",
        confidence=0.5,
        evidence=[Evidence("a", 1.0), Evidence("b", 1e200, high=2.0)],
    )
    verdict, note = read_events(tmp_path / "events.jsonl")
    assert verdict["evidence"][1] == {"name": "b", "low": None, "high": 2.0, "at_step": None}
    assert (note["event"], note["step"]) == ("note", 3)
    assert "evidence[1].value must be a finite number" in note["because"]


@pytest.mark.slow
@pytest.mark.usefixtures("survived")
def test_a_run_with_a_defect_in_its_verdict_and_its_pages_comes_to_its_end(
    quick: list[str], marked_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = outcome.run_block

    def broken(*given: Any) -> dict[str, Any]:
        found = block(*given)
        odd = {"name": 7, "value": "much"}
        verdict = {**found["verdict"], "evidence": [*found["verdict"]["evidence"], odd]}
        return {**found, "verdict": verdict}

    def no_page(_: Path) -> None:
        raise KeyError("a part of the page")

    def no_texts(fitted: Any) -> Any:
        raise IndexError("a text")

    monkeypatch.setattr(outcome, "run_block", broken)
    monkeypatch.setattr(main, "judge_with_texts", no_texts)
    card, _ = scoring.PAGES
    monkeypatch.setattr(scoring, "PAGES", (card, ("report.html", no_page)))
    heard: list[Any] = []
    run, recipe = tmp_path / "run", override(Recipe(), [f"data.path={marked_csv}", *quick])
    with decisions_to(heard.append):
        result = main.train(recipe.with_changes(train={"max_steps": 4}), run)
    assert result == read_result(run)
    assert all(isinstance(one["name"], str) for one in result["verdict"]["evidence"] if one)
    told = [one for one in heard if isinstance(one, Decision) and one.prominent]
    said = {name: " ".join(one.because for one in told if one.what == name) for name in WRITTEN}
    assert "name must be a text, and is 7" in said["result.json"]
    assert "KeyError" in said["report.html"]
    (texts,) = [one for one in told if one.what == "validation texts"]
    assert "IndexError: a text; the verdict is based on the losses alone" in texts.because
    assert not (run / "checkpoints").exists()
    assert holdfast.TrainedRun(run).predict(["w1 w2 bad"])[0] in result["classes"]
    monkeypatch.undo()
    assert main.train(recipe, run, resume=True)["verdict"] == result["verdict"]
    assert (run / "report.html").exists()
    assert json.loads((run / "result.json").read_text("utf-8"))["seal"]
