"""When an analysis is made, and what becomes of its answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from holdfast.analyses import analysis as module
from holdfast.analyses.analysis import Analysis, NoAnswer, all_analyses, recompute_block
from holdfast.core.errors import Defect, Interrupted, RecipeError, RunError
from holdfast.core.run_files import read_events, read_result
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override
from holdfast.recipe.parts import SkippedAnalysis
from holdfast.runs.finished_run import OPENINGS, FinishedRun
from holdfast.runs.start import OPENED


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Callable[[Analysis[Any]], None]:
    """Puts analyses of a test in the place of all others."""
    asked: dict[str, Analysis[Any]] = {}
    monkeypatch.setattr(module, "all_analyses", lambda: asked)

    def add(one: Analysis[Any]) -> None:
        asked[one.name] = one

    return add


@pytest.fixture
def run_of(tmp_path: Path, marked_csv: Path, quick: list[str]) -> Any:
    def make(*settings: str) -> Path:
        train(override(Recipe(), [f"data.path={marked_csv}", *quick, *settings]), tmp_path / "run")
        return tmp_path / "run"

    return make


@pytest.mark.slow
def test_candidates_are_found_before_the_test_rows_open_and_confirmed_after(
    asking: Any, run_of: Any
) -> None:
    opened: list[bool] = []
    seen: dict[str, Any] = {}

    def was_opened(run: Path) -> bool:
        return any(
            e.get("what") == OPENED for e in read_events(run / "events.jsonl", partial_end=True)
        )

    def find(session: Any) -> dict[str, int]:
        opened.append(was_opened(session.run))
        assert not hasattr(session, "test")
        return {"valid": len(session.valid), "train": len(session.train)}

    def confirm(found: dict[str, int], session: Any, test: Any) -> dict[str, Any]:
        opened.append(was_opened(session.run))
        seen["rows"] = test.rows.tolist()
        seen["losses"] = test.losses
        return {**found, "test": len(test)}

    asking(Analysis("counted", ("probes", "counted"), find, confirm))
    run = run_of()
    result = read_result(run)
    assert opened == [False, True]
    sides = {name: result["data"][name] for name in ("train", "valid", "test")}
    assert result["probes"]["counted"] == sides
    # What stood there before stays.
    assert "forgetting" in result["probes"]
    assert seen["losses"].mean() == pytest.approx(result["test"]["metrics"]["loss"]["value"])


@pytest.mark.slow
def test_what_cannot_be_asked_says_why_and_costs_no_run(asking: Any, run_of: Any) -> None:
    def refuse(session: Any) -> None:
        raise RunError("the rows", "cannot be asked this", None, "Ask another.")

    asking(Analysis("first", ("first",), lambda _: NoAnswer("there is no reason"), lambda *_: {}))
    asking(Analysis("second", ("second",), refuse, lambda *_: {}))
    asking(Analysis("third", ("third",), lambda _: None, lambda *_: {}))
    result = read_result(run_of())
    assert result["first"] == {"why": "there is no reason"}
    assert "cannot be asked this" in result["second"]["why"]
    assert "third" not in result


@pytest.mark.slow
def test_a_defect_in_an_analysis_costs_no_run_and_is_told(
    asking: Any, run_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(session: Any) -> None:
        raise IndexError("the fourth of three")

    asking(Analysis("broken", ("broken",), fail, lambda *_: {}))
    monkeypatch.setenv("HOLDFAST_DEFECTS", "")
    why = read_result(run_of())["broken"]["why"]
    assert "IndexError: the fourth of three" in why
    assert "report it" in why


def test_an_interrupt_inside_an_analysis_ends_the_run_as_anywhere_else(
    asking: Any, run_of: Any
) -> None:
    def interrupted(session: Any) -> None:
        raise Interrupted("the fit", "was interrupted at step 3", None, "Fit it again.")

    asking(Analysis("long", ("long",), interrupted, lambda *_: {}))
    with pytest.raises(Interrupted, match="the run") as found:
        run_of()
    assert "--resume" in found.value.remedy


def test_a_broken_promise_in_an_analysis_is_a_defect_not_an_answer(
    asking: Any, run_of: Any
) -> None:
    def broken(session: Any) -> None:
        raise Defect("the rows", "must be as many", (3, 4))

    asking(Analysis("broken", ("broken",), broken, lambda *_: {}))
    with pytest.raises(Defect, match="as many"):
        run_of()


@pytest.mark.slow
def test_without_test_rows_nothing_is_confirmed(asking: Any, run_of: Any) -> None:
    def never(*_: Any) -> dict[str, Any]:
        raise AssertionError("there is nothing to confirm it on")

    asking(Analysis("one", ("one",), lambda _: 1, never))
    result = read_result(run_of("data.split.test=0"))
    assert "none were set aside" in result["one"]["why"]


def test_a_finished_run_gives_its_rows_and_what_was_said_of_them_again(finished_run: Path) -> None:
    again = FinishedRun(finished_run)
    result = read_result(finished_run)
    for side in ("train", "valid", "test"):
        told = again.predictions_of(side)
        assert len(told) == result["data"][side]
        assert told.names == tuple(result["classes"])
        # The very texts: the label is read off each of these rows' marks.
        assert told.wrong is not None
        said = [told.table.classes[k] for k in told.table.column("label")]
        assert [a != b for a, b in zip(told.predictions or (), said, strict=True)] == list(
            told.wrong
        )
    test, block = again.predictions_of("test"), result["test"]["metrics"]
    assert test.losses.mean() == pytest.approx(block["loss"]["value"])
    assert test.wrong is not None
    assert 1 - test.wrong.mean() == pytest.approx(block["accuracy"]["value"])
    answers = again.predictor.predict_table(again.table("valid"))
    assert answers.probabilities is not None
    np.testing.assert_allclose(
        answers.probabilities, again.predictions_of("valid").probabilities, atol=1e-4
    )


def alike(one: Any, other: Any) -> bool:
    """The same JSON, numbers to what a stored probability keeps of them."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == (pytest.approx(other, 1e-3, 1e-4) if isinstance(one, float) else other))


@pytest.mark.parametrize("name", [*all_analyses()])
def test_a_finished_run_finds_and_confirms_what_its_training_did(
    finished_run: Path, name: str
) -> None:
    analysis, run = all_analyses()[name], FinishedRun(finished_run)
    if name in ("distilled", "forgetting"):
        pytest.skip("needs the network before training")
    stored: Any = run.result
    for key in analysis.where:
        stored = stored[key]
    made = recompute_block(analysis, run)
    # The training also tells what it alone could ask, and the verdict adds a sentence.
    assert alike({key: stored[key] for key in made}, made)


@pytest.mark.slow
def test_a_source_that_changed_is_refused(run_of: Any, marked_csv: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.csv"
    moved.write_bytes(marked_csv.read_bytes())
    run = run_of(f"data.path={moved}")
    lines = moved.read_text("utf-8").splitlines()
    moved.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n", encoding="utf-8")
    with pytest.raises(RunError, match="has changed since"):
        FinishedRun(run).predictions_of("valid")


def test_each_opening_of_the_test_rows_is_written_down(finished_run: Path, tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    again = FinishedRun(run)
    assert again.reopen("explain", ["does the word matter?"]).count == 1
    assert again.reopen("explain", ["does the word matter?"]).count == 2
    lines = [json.loads(line) for line in (run / OPENINGS).read_text("utf-8").splitlines()]
    assert [line["command"] for line in lines] == ["explain", "explain"]
    assert lines[0]["rows"] == read_result(run)["data"]["test"]
    # The run is still one whose files are as it left them.
    assert again.predictor.names


def test_a_run_leaves_out_the_analyses_of_probes_skip(run_of: Any) -> None:
    run = run_of("probes.skip=all")
    result = read_result(run)
    for name in get_args(SkippedAnalysis)[1:]:
        block = next(one for one in all_analyses().values() if one.where[-1] == name)
        found: Any = result
        for key in block.where:
            found = found[key]
        assert found == {"why": "left out by probes.skip"}, name
    # What a run is for stays, and so does the verdict's comparison with the test rows.
    assert result["test"]["metrics"]["accuracy"]["value"] is not None
    assert result["baseline"]["test"]
    assert "difference" in result["verdict"]["test_comparison"]
    assert (run / "report.html").stat().st_size
    assert (run / "model" / "README.md").stat().st_size


def test_an_unknown_analysis_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"probes\.skip"):
        override(Recipe(), ["probes.skip=[memory]"])
