"""``holdfast errors``: what a person sees of where a run fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

import holdfast
from holdfast.analyses.errors.analysis import PredictedRows, TrainingNeighbours
from holdfast.analyses.robustness.analysis import refuse_task
from holdfast.core.errors import RecipeError
from holdfast.core.run_files import read_result
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override
from holdfast.runs.finished_run import FinishedRun


@pytest.fixture(scope="module")
def failing_run(
    tmp_path_factory: pytest.TempPathFactory, quick: list[str], marked_rows: Any, write_csv: Any
) -> Path:
    """A run on rows of which those of shop C bear labels at random."""
    folder, rng = tmp_path_factory.mktemp("failing"), np.random.default_rng(0)
    rows = []
    for text, label in marked_rows(720):
        shop = str(rng.choice(list("ABCD")))
        rows.append((text, str(rng.choice(["no", "yes"])) if shop == "C" else label, shop))
    path = write_csv(folder / "rows.csv", rows, header=("text", "label", "shop"))
    settings = [f"data.path={path}", "data.text=[text]", "data.label=label", *quick]
    shares = ["train=0.5", "valid=0.2", "test=0.3"]
    settings += ["train.epochs=4", *(f"data.split.{share}" for share in shares)]
    train(override(Recipe(), settings), folder / "run")
    return folder / "run"


def test_a_slice_that_fails_is_named_in_the_run_its_report_and_the_command(
    failing_run: Path, holdfast: Callable[..., Any]
) -> None:
    block = read_result(failing_run)["slices"]
    found = block["found"]
    assert found[0]["slice"] == "rows with shop = C"
    assert found[0]["condition"]["kind"] == "column"
    assert found[0]["p_value"] <= 0.05
    assert found[0]["value"]["low"] > found[0]["rest"]["value"]
    assert len(found) + len(block["undecided"]) == block["n_candidates"] <= 20
    done = holdfast("errors", failing_run)
    assert done.code == 0
    assert "- rows with shop = C: test rows " in done.out
    run = FinishedRun(failing_run)
    shops = run.other_columns(run.train_rows)["shop"]
    share = found[0]["train_share"]
    assert share == shops.count("C") / len(shops)
    assert f"has {100 * share:.1f} % of the training rows" in " ".join(done.out.split())
    assert "False alarm rate" in done.out
    assert all(len(line) <= 80 for line in done.out.splitlines())
    page = (failing_run / "report.html").read_text("utf-8")
    assert "rows with shop = C" in page
    assert 'id="slices"' in page
    told = f"The slice “rows with shop = C” has {100 * share:.1f}\u00a0% of the training rows"
    assert f"{told} and {100 * found[0]['n'] / block['rows']['test']:.1f}" in page


def test_what_is_stored_is_shown_and_worked_out_alike_where_it_is_not(
    failing_run: Path, holdfast: Callable[..., Any], tmp_path: Path
) -> None:
    from holdfast.analyses.errors.analysis import failing_slices, wrong_rows

    shown = json.loads(holdfast("errors", failing_run, "--json", "--quiet").out)
    result = read_result(failing_run)
    assert shown["slices"] == result["slices"]
    assert shown["confusions"] == result["errors"]["confusions"]
    again = FinishedRun(failing_run)
    made = failing_slices(again)
    assert [one["slice"] for one in made["found"]] == [
        one["slice"] for one in shown["slices"]["found"]
    ]
    rows = wrong_rows(again)
    assert [one["row"] for one in rows["hardest"]] == [one["row"] for one in shown["hardest"]]
    assert rows["hardest"][0]["nearest"] == shown["hardest"][0]["nearest"]


def test_confusions_count_what_the_matrix_counts(failing_run: Path) -> None:
    result = read_result(failing_run)
    matrix, classes = result["test"]["confusion"]["counts"], result["classes"]
    for pair in result["errors"]["confusions"]:
        label, answer = classes.index(pair["label"]), classes.index(pair["answer"])
        assert pair["n"] == matrix[label][answer]
        assert pair["share"]["value"] == pytest.approx(pair["n"] / sum(matrix[label]))
        assert all(one["like"]["label"] == pair["answer"] for one in pair["examples"])


def test_hard_rows_stand_beside_training_rows(failing_run: Path) -> None:
    hardest = read_result(failing_run)["errors"]["hardest"]
    again = FinishedRun(failing_run)
    train_rows, test = set(again.table("train").column("row")), again.predictions_of("test")
    losses = dict(zip(test.rows.tolist(), test.losses.tolist(), strict=True))
    assert [losses[one["row"]] for one in hardest] == sorted(
        (losses[one["row"]] for one in hardest), reverse=True
    )
    for one in hardest:
        assert one["label"] != one["prediction"]
        assert all(near["row"] in train_rows for near in one["nearest"])
        assert one["because"]


def test_a_text_is_as_similar_as_the_words_that_both_have(failing_run: Path) -> None:
    run = FinishedRun(failing_run)
    test = run.predictions_of("test")
    given = ["the proper answer to say goodnight", "say goodnight", "what do friends say", "an end"]
    training = TrainingNeighbours(
        np.arange(3),
        tuple(given[1:]),
        tuple(tuple(text.split()) for text in given[1:]),
        ("a", "a", "b"),
        {},
    )
    rows = PredictedRows(test, training)
    rows.__dict__["texts"] = (given[0], *given[1:], *["nothing"] * (len(test) - 4))
    near = rows.nearest(0, 3)
    assert near is not None
    assert [one["text"] for one in near] == ["say goodnight"]
    assert 0.35 < near[0]["alike"] < 0.9
    (same,) = rows.nearest(2, 1) or [{}]
    assert (same["text"], same["alike"]) == ("what do friends say", 1.0)
    assert rows.nearest(0, 1, "b") == []


def test_changed_test_rows_are_asked_and_counted(
    failing_run: Path, holdfast: Callable[..., Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(failing_run, run)
    first = json.loads(holdfast("errors", run, "--robustness", "--json", "--quiet").out)
    again = holdfast("errors", run, "--robustness", "--quiet")
    block = first["robustness"]
    assert block["openings"] == 1
    assert "uses of the test set after the test score: 2)" in " ".join(again.out.split())
    # The tiny model knows small letters alone: in capitals every word is unknown to it.
    case = block["changes"]["case"]
    assert case["n"] == block["n"]
    assert case["flipped"]["value"] > 0.2
    assert case["worse"]
    assert block["changes"]["end marks"]["flipped"]["value"] < 0.2
    for name, one in block["changes"].items():
        if one["n"]:
            gap = one["difference"]
            assert gap["low"] <= gap["value"] <= gap["high"], name
    assert (run / "openings.jsonl").read_text("utf-8").count("\n") == 2


@pytest.mark.slow
def test_topics_of_frozen_vectors_are_a_question_of_their_own(
    failing_run: Path, holdfast: Callable[..., Any]
) -> None:
    found = json.loads(holdfast("errors", failing_run, "--topics", "--json", "--quiet").out)
    topics = found["topics"]
    assert topics["rows"] == found["slices"]["rows"]
    assert topics["n_candidates"] == len(topics["found"]) + len(topics["undecided"])
    told = [*topics["found"], *topics["undecided"]]
    assert all(one["condition"]["kind"] in ("topic", "both") for one in told)
    assert not (failing_run / "openings.jsonl").exists()


@pytest.mark.parametrize("task", ["seq2seq", "causal-lm"])
def test_a_model_that_writes_is_asked_about_no_changed_rows(task: str) -> None:
    with pytest.raises(RecipeError, match=task):
        refuse_task(task)


def test_it_is_a_function_too(failing_run: Path) -> None:
    found = holdfast.errors(failing_run)
    assert found["slices"]["found"]
    assert found["robustness"] is None


def test_a_folder_that_is_no_run_is_refused(holdfast: Callable[..., Any], tmp_path: Path) -> None:
    done = holdfast("errors", tmp_path)
    assert done.code == 2
    assert "holdfast:" in done.err


def test_predict_names_the_weak_slices_of_each_row(
    failing_run: Path, holdfast: Callable[..., Any], write_csv: Any, tmp_path: Path
) -> None:
    named = [one["slice"] for one in read_result(failing_run)["slices"]["found"]]
    rows = [("a text", "C"), ("a text", "A"), ("", "C")]
    path = write_csv(tmp_path / "new.csv", rows, header=("text", "shop"))
    setting = ("--set", "predict.slices=true")
    done = holdfast("predict", failing_run, path, *setting)
    first, second, empty = (set(json.loads(line)["slices"]) for line in done.out.splitlines())
    assert "rows with shop = C" in first <= set(named)
    assert "rows with shop = C" not in second
    # A row without a text is not predicted.
    assert not empty
    for name in ("p.csv", "p.parquet", "p.jsonl"):
        assert holdfast("predict", failing_run, path, *setting, "--out", tmp_path / name).code == 0
    assert "rows with shop = C" in (tmp_path / "p.csv").read_text("utf-8").splitlines()[1]
    written = parquet.read_table(tmp_path / "p.parquet")["slices"].to_pylist()
    assert [set(one) for one in written] == [first, second, empty]
    plain = holdfast("predict", failing_run, path)
    assert "slices" not in json.loads(plain.out.splitlines()[0])


def test_slices_are_refused_where_there_is_none_to_name(
    failing_run: Path, finished_run: Path, holdfast: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "new.csv"
    path.write_text("text\na text\n", "utf-8")
    setting = ("--set", "predict.slices=true")
    several = holdfast("predict", failing_run, failing_run, path, *setting)
    assert several.code == 2
    assert "needs a single run" in several.err
    without = holdfast("predict", finished_run, path, *setting)
    assert without.code == 2
    assert "needs a run with a confirmed slice" in without.err


def test_the_report_says_how_to_find_rows_of_the_slice(failing_run: Path) -> None:
    page = (failing_run / "report.html").read_text("utf-8")
    assert "--set predict.slices=true" in page
