"""A student of token vectors and a small block: ``holdfast distill RUN --to static``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
import transformers

from holdfast.core.errors import RecipeError
from holdfast.plugins.update.start import warm_start_obstacle
from holdfast.recipe import read_recipe
from holdfast.search import student as made

PLAIN = ["train.precision=float32", "train.threads=1", "train.matmul=default"]


@pytest.fixture(scope="module")
def static(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import holdfast

    folder = tmp_path_factory.mktemp("static") / "run"
    settings = [*PLAIN, "train.epochs=4", "train.keep=last", "distill.alone=false"]
    holdfast.distill(finished_run, to="static", out=folder, settings=settings, quiet=True)
    return folder


def test_it_is_a_run_whose_model_is_a_plain_one_of_one_block(static: Path) -> None:
    result = json.loads((static / "result.json").read_text("utf-8"))
    assert result["test"]["n"] > 0
    block = result["distilled"]
    assert block["student"]["model"].endswith(", static")
    assert block["student"]["value"] == result["test"]["metrics"]["accuracy"]["value"]
    assert result["model_facts"]["architecture"] == "static token vectors"
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(static / "model")
    assert plain.config.num_hidden_layers == 1
    assert "Student and teacher" in (static / "report.html").read_text("utf-8")


def test_its_stored_model_gives_the_scored_predictions(
    holdfast: Any, static: Path, marked_csv: Path, tmp_path: Path
) -> None:
    done = holdfast("predict", static, marked_csv, "--out", tmp_path / "p.jsonl")
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text("utf-8").splitlines()]
    scored = parquet.read_table(static / "predictions.parquet").to_pylist()
    assert scored
    for row in scored:
        line = lines[row["row"]]
        assert line["prediction"] == row["prediction"]
        assert line["confidence"] == pytest.approx(max(row["probabilities"]), rel=1e-4)


def test_an_update_does_not_begin_from_it(static: Path) -> None:
    recipe = read_recipe(static / "recipe.yaml")
    assert "static model" in str(warm_start_obstacle(static, recipe, 0))
    assert warm_start_obstacle(static, recipe.with_changes(model={"static": False}), 0) is None


def test_it_is_evaluated_as_any_run(holdfast: Any, static: Path, marked_csv: Path) -> None:
    done = holdfast("evaluate", static, marked_csv, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["n"] == 160


def test_its_vectors_may_be_those_of_another_model(finished_run: Path, tiny_model: Path) -> None:
    recipe = made.student_recipe([finished_run], student=str(tiny_model), to="static")
    assert (recipe.model.name, recipe.model.static) == (str(tiny_model), True)
    recipe = made.student_recipe([finished_run], to="static", layers=0)
    assert (recipe.model.name, recipe.model.layers) == (str((finished_run / "model").resolve()), 0)


@pytest.mark.parametrize(
    ("given", "setting", "words"),
    [
        ({"to": "static"}, "model.static=false", "model.static: contradicts --to static"),
        ({}, "model.static=true", "model.static: is set by --to static"),
        ({"to": "static", "layers": 1}, "model.layers=2", "model.layers: contradicts --layers"),
        ({"layers": 1.5}, "model.static=false", "--layers: must be a whole number"),
        ({"layers": True}, "model.static=false", "--layers: must be a whole number"),
    ],
)
def test_a_setting_that_contradicts_an_option_is_refused(
    finished_run: Path, given: dict[str, Any], setting: str, words: str
) -> None:
    with pytest.raises(RecipeError, match=re.escape(words)):
        made.student_recipe([finished_run], **given, settings=[setting])


def test_unlabelled_texts_are_crossed_too(finished_run: Path, tmp_path: Path) -> None:
    import holdfast

    (tmp_path / "more.csv").write_text("text\nw1 w2 w3\nw4 w2 w6\nw7 w8 w3 w1\n", "utf-8")
    settings = [*PLAIN, "train.max_steps=2", "distill.alone=false"]
    found = holdfast.distill(
        finished_run,
        to="static",
        layers=0,
        unlabelled=str(tmp_path / "more.csv"),
        out=tmp_path / "run",
        settings=settings,
        quiet=True,
    ).result
    told = {one["what"]: one["chosen"] for one in found["decisions"]}
    assert told["unlabelled rows"].startswith("3 texts")
    assert told["combined texts"] == f"{6 * (found['data']['train'] + 3)} texts"
    assert told["token vectors"].endswith("of width 32")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["--to", "table"], ("--to", "is unknown", "Use --to static")),
        (["--to", "static", "--layers", "-1"], ("--layers", "must be at least 0")),
        (
            ["--to", "static", "--set", "model.layers_kept=first"],
            ("model.static", "model.layers_kept=first has no use"),
        ),
    ],
)
def test_what_cannot_be_is_refused(
    holdfast: Any, finished_run: Path, tmp_path: Path, asked: list[str], words: tuple[str, ...]
) -> None:
    done = holdfast("distill", finished_run, *asked, "--out", tmp_path / "no")
    assert done.code == 2
    assert all(word in done.err for word in words)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("task", "label_kind", "words"),
    [
        ("text-classification", "several", "data.label_kind is several"),
        ("text-classification", "number", "data.label_kind is number"),
        ("token-classification", None, "not supported for token-classification"),
        ("image-classification", None, "not supported for image-classification"),
        ("seq2seq", None, "not supported for seq2seq"),
        ("causal-lm", None, "not supported for causal-lm"),
    ],
)
def test_other_labels_and_tasks_are_refused(
    holdfast: Any,
    finished_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    label_kind: str | None,
    words: str,
) -> None:
    """By the teacher's recipe, before any model is loaded."""
    recipe = made.run_recipe(finished_run)
    other = recipe.model_copy(
        update={"task": task, "data": recipe.data.model_copy(update={"label_kind": label_kind})}
    )
    monkeypatch.setattr(made, "run_recipe", lambda _: other)
    monkeypatch.setattr(made, "check_teachers", lambda *_: None)
    done = holdfast("distill", finished_run, "--to", "static", "--out", tmp_path / "no")
    assert done.code == 2
    assert "model.static" in done.err
    assert words in done.err
    assert "Leave it out" in done.err
    assert not (tmp_path / "no").exists()


def test_it_teaches_a_static_student_in_turn_and_has_no_blocks_to_keep(
    static: Path, tmp_path: Path
) -> None:
    """Its recipe says that the mean is pooled, which its own layers do."""
    import holdfast

    settings = [*PLAIN, "train.max_steps=2", "distill.alone=false"]
    again = holdfast.distill(
        static, to="static", layers=0, out=tmp_path / "again", settings=settings, quiet=True
    )
    assert again.result["model_facts"]["architecture"] == "static token vectors"
    with pytest.raises(RecipeError, match="student: must be given: the teacher is a static"):
        holdfast.distill(tmp_path / "again", out=tmp_path / "none")
