"""A smaller model that answers as a run does, through the command line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import transformers

PLAIN = ["train.precision=float32", "train.threads=1", "train.matmul=default"]
# The last state, so that what was learned is what is compared.
SHORT = [*PLAIN, "train.epochs=4", "train.learning_rate=1e-3", "train.keep=last"]


def sets(*settings: str) -> list[str]:
    return [part for one in settings for part in ("--set", one)]


def result_of(run: Path) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads((run / "result.json").read_text("utf-8"))
    return whole


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sides(run: Path) -> dict[int, str]:
    found = parquet.read_table(run / "splits.parquet")
    return dict(zip(found["row"].to_pylist(), found["split"].to_pylist(), strict=True))


def train(settings: list[str], folder: Path) -> Path:
    from holdfast.pipeline.main import train as run
    from holdfast.recipe import Recipe, override

    run(override(Recipe(), settings), folder)
    return folder


@pytest.fixture(scope="module")
def student(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of the teacher's two blocks, through the Python door."""
    import holdfast

    folder = tmp_path_factory.mktemp("students") / "one"
    holdfast.distill(finished_run, layers=1, out=folder, settings=SHORT, quiet=True)
    return folder


@pytest.mark.slow
def test_a_student_that_nothing_was_kept_of_is_said_to_be_untaught(
    finished_run: Path, student: Path, tmp_path: Path
) -> None:
    import holdfast

    wild = [*PLAIN, "train.epochs=1", "train.learning_rate=0.3", "distill.alone=false"]
    run = holdfast.distill(finished_run, layers=1, out=tmp_path / "w", settings=wild, quiet=True)
    assert run.result["best_step"] == 0
    because, kept = run.result["distilled"]["because"], run.result["distilled"]["kept"]
    assert because.startswith("The distillation was discarded: none of its ")
    assert "with a linear probe as its last layer" in because
    assert ("not shown to be below its teacher" in because) == (kept["value"] >= 1)
    assert "discarded" not in result_of(student)["distilled"]["because"]
    page = (tmp_path / "w" / "report.html").read_text("utf-8")
    assert "Fine-tuning was discarded" in page
    (state,) = [d for d in run.result["decisions"] if d["what"] == "best checkpoint"]
    assert "added rows" in state["chosen"]


def test_a_student_has_its_teachers_rows_and_is_held_against_it(
    finished_run: Path, student: Path
) -> None:
    found, teacher = result_of(student), result_of(finished_run)
    assert sides(student) == sides(finished_run)
    told = {d["what"]: d["chosen"] for d in found["decisions"]}
    assert told["combined texts"] == f"{6 * teacher['data']['train']} texts"
    assert found["data"]["train"] == teacher["data"]["train"]
    block = found["distilled"]
    assert block["n"] == found["test"]["n"] == teacher["test"]["n"]
    for side, run in (("teacher", teacher), ("student", found)):
        assert block[side]["value"] == pytest.approx(run["test"]["metrics"]["accuracy"]["value"])
    assert block["kept"]["value"] == pytest.approx(
        block["student"]["value"] / block["teacher"]["value"]
    )
    assert 0 <= block["agreement"]["value"] <= 1
    assert block["alone"]["value"] is not None
    # Of the student less the other one, whoever it is held against.
    own = block["student"]["value"]
    for side, other in (("against_teacher", "teacher"), ("alone", "alone")):
        gap = block[side]["difference"]
        assert gap["value"] == pytest.approx(own - block[other]["value"])
        assert gap["low"] <= gap["value"] <= gap["high"]
    assert block["student"]["parameters"] < block["teacher"]["parameters"]
    assert block["speed"]["value"] > 0
    page = (student / "report.html").read_text("utf-8")
    assert "Student and teacher" in page


def test_the_model_is_a_plain_one_of_so_many_blocks(student: Path) -> None:
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(student / "model")
    # One block, and the one that carries the mean.
    assert plain.config.num_hidden_layers == 2


@pytest.mark.slow
def test_its_recipe_repeats_it(holdfast: Any, student: Path, tmp_path: Path) -> None:
    done = holdfast("train", student / "recipe.yaml", "--out", tmp_path / "again", "--quiet")
    assert done.code == 0, done.err
    for name in ("model/model.safetensors", "predictions.parquet"):
        assert digest(tmp_path / "again" / name) == digest(student / name)


@pytest.mark.slow
def test_a_student_without_a_teacher_is_another_one(
    holdfast: Any, student: Path, tmp_path: Path
) -> None:
    done = holdfast(
        "train",
        student / "recipe.yaml",
        "--out",
        tmp_path / "bare",
        *sets("distill.teacher=null"),
        "--quiet",
    )
    assert done.code == 0, done.err
    assert "distilled" not in result_of(tmp_path / "bare")
    weights = "model/model.safetensors"
    assert digest(tmp_path / "bare" / weights) != digest(student / weights)


@pytest.mark.slow
def test_a_killed_student_ends_as_one_that_was_left_alone(
    holdfast: Any, finished_run: Path, student: Path, tmp_path: Path, killed: type[BaseException]
) -> None:
    from holdfast.pipeline import main
    from holdfast.search.student import student_recipe

    class Dies:
        name = "dies"
        steps = 0

        def step_done(self, run: Any) -> None:
            self.steps += 1
            if self.steps == 11:
                raise killed

    recipe = student_recipe([finished_run], layers=1, settings=SHORT)
    folder = tmp_path / "killed"
    with pytest.raises(killed):
        main.train(recipe, folder, listeners=(Dies(),), checkpoint_every_s=0.0)
    done = holdfast("distill", finished_run, "--layers", 1, "--out", folder, "--resume", "--quiet")
    assert done.code == 0, done.err
    for name in ("model/model.safetensors", "predictions.parquet", "examples.parquet"):
        assert digest(folder / name) == digest(student / name)
    kept = ("kept", "agreement", "against_teacher", "alone")
    blocks = [result_of(run)["distilled"] for run in (folder, student)]
    assert [blocks[0][key] for key in kept] == [blocks[1][key] for key in kept]


@pytest.mark.parametrize(
    ("setting", "kept"),
    [("train.max_steps=2", "newest_unless_worse"), ("train.metric=accuracy", "lowest")],
)
def test_the_newest_checkpoint_is_kept_that_is_not_worse(
    finished_run: Path, tmp_path: Path, setting: str, kept: str
) -> None:
    import holdfast

    settings = [*PLAIN, "train.max_steps=2", "distill.alone=false", setting]
    run = holdfast.distill(
        finished_run, layers=1, settings=settings, out=tmp_path / "student", quiet=True
    )
    assert run.result["settings"]["train"]["keep"] == kept


@pytest.mark.slow
def test_several_runs_teach_together_only_on_one_division(
    holdfast: Any,
    finished_run: Path,
    marked_csv: Path,
    quick: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [f"data.path={marked_csv}", *quick, "train.epochs=2", "seed=1"]
    other = train(rows, tmp_path / "other")
    same = train([*rows, "data.split.seed=0"], tmp_path / "same")
    assert sides(same) == sides(finished_run) != sides(other)
    asked = ["--layers", 1, *sets(*SHORT, "distill.alone=false"), "--quiet"]
    done = holdfast("distill", finished_run, other, "--out", tmp_path / "no", *asked)
    assert done.code == 2
    said = " ".join(done.err.split())
    assert "was trained or validated on " in said
    assert "of the new run" in said
    assert not (tmp_path / "no" / "result.json").exists()
    done = holdfast("distill", finished_run, same, "--out", tmp_path / "both", *asked)
    assert done.code == 0, done.err
    block = result_of(tmp_path / "both")["distilled"]
    assert block["teacher"]["runs"] == ["finished", "same"]
    assert block["alone"] == {"why": "set in the recipe: distill.alone=false"}


@pytest.mark.slow
def test_unlabelled_texts_are_answered_by_the_teacher(
    holdfast: Any, finished_run: Path, marked_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    texts = [(text,) for text, _ in marked_rows(40, seed=9)]
    beside = write_csv(tmp_path / "more.csv", texts, ("text",))
    done = holdfast(
        "distill",
        finished_run,
        "--layers",
        1,
        "--unlabelled",
        beside,
        "--out",
        tmp_path / "s",
        *sets(*SHORT, "distill.alone=false"),
        "--json",
    )
    assert done.code == 0, done.err
    found = json.loads(done.out)
    told = {d["what"]: d for d in found["decisions"]}
    assert told["unlabelled rows"]["chosen"] == "40 texts, labelled by the teacher"
    assert "combined texts" not in told
    assert "40 of origin taught" in told["added rows"]["chosen"]
    assert found["settings"]["data"]["unlabelled_by"] == "teacher"
    assert found["data"]["train"] == result_of(finished_run)["data"]["train"]


@pytest.mark.slow
def test_a_student_may_read_other_pieces_but_not_other_forms(
    holdfast: Any, finished_run: Path, letters_model: Path, tmp_path: Path
) -> None:
    asked = ["--student", letters_model, *sets(*SHORT, "distill.alone=false"), "--quiet"]
    done = holdfast("distill", finished_run, "--out", tmp_path / "s", *asked)
    assert done.code == 0, done.err
    assert result_of(tmp_path / "s")["distilled"]["student"]["model"] == "bert"
    forms = sets("enrich.delete.share=0.5")
    done = holdfast("distill", finished_run, "--out", tmp_path / "forms", *asked, *forms)
    assert done.code == 2
    assert "its vocabulary differs" in done.err
    # Its own blocks read as it does, and the teacher is asked about each form.
    cut = ["--layers", 1, *sets(*SHORT, "distill.alone=false"), *forms, "--json"]
    done = holdfast("distill", finished_run, "--out", tmp_path / "cut", *cut)
    assert done.code == 0, done.err
    told = {d["what"]: d["chosen"] for d in json.loads(done.out)["decisions"]}
    assert told["teacher outputs"] == "computed at every update"


@pytest.mark.slow
def test_what_cannot_be_is_refused_in_words(
    holdfast: Any, finished_run: Path, marked_csv: Path, tmp_path: Path
) -> None:
    def said(*arguments: object) -> str:
        done = holdfast("distill", *arguments, "--out", tmp_path / "no", "--quiet")
        assert done.code == 2, done.err
        assert not (tmp_path / "no").exists()
        return str(done.err)

    for wrong in (tmp_path / "nowhere", marked_csv):
        assert "Name the folder of a finished run." in said(wrong)
    assert "exclude each other" in said(finished_run, "--student", "embedded", "--layers", 1)
    assert "at most the 2 blocks" in said(finished_run, "--layers", 9)
    for few in (0, -1):
        assert "must be at least 1" in said(finished_run, "--layers", few)
    assert "train.folds" in said(finished_run, "--layers", 1, *sets("train.folds=3"))
    assert "none.csv: does not exist" in said(finished_run, "--unlabelled", tmp_path / "none.csv")


def test_a_teacher_that_left_no_row_to_score_on_is_refused(
    holdfast: Any, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a run of cv without --test does: it learned from all."""
    from holdfast.search import student as made

    monkeypatch.setattr(made.FinishedRun, "n_test", 0)
    done = holdfast("distill", finished_run, "--layers", 1, "--out", tmp_path / "no")
    assert done.code == 2
    assert "has no test rows, and a student is tested on those of its teacher" in done.err
    assert "--set data.test=FILE" in done.err
    assert not (tmp_path / "no").exists()


def test_rows_that_have_changed_since_are_refused(
    holdfast: Any, marked_rows: Any, write_csv: Any, quick: list[str], tmp_path: Path
) -> None:
    rows = marked_rows(60)
    path = write_csv(tmp_path / "rows.csv", rows)
    run = train([f"data.path={path}", *quick, "train.epochs=1"], tmp_path / "run")
    write_csv(path, [(f"{text} word", label) for text, label in rows])
    done = holdfast("distill", run, "--layers", 1, "--out", tmp_path / "no", "--quiet")
    assert done.code == 2
    assert "changed" in done.err


def _lines(path: Path, make: Callable[[np.random.Generator, int], dict[str, Any]]) -> Path:
    rng = np.random.default_rng(0)
    path.write_text("\n".join(json.dumps(make(rng, i)) for i in range(60)) + "\n", "utf-8")
    return path


def _words(rng: np.random.Generator, most: int = 9) -> list[str]:
    WORDS = [f"w{i}" for i in range(40)]

    return [WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(3, most))]


def _number(rng: np.random.Generator, i: int) -> dict[str, Any]:
    return {"text": " ".join(_words(rng)), "label": round(1.5 * i, 1) + 0.25}


def _several(rng: np.random.Generator, i: int) -> dict[str, Any]:
    return {"text": " ".join(_words(rng)), "label": [["a"], ["a", "b"], [], ["b"]][i % 4]}


def _tags(rng: np.random.Generator, i: int) -> dict[str, Any]:
    words = _words(rng)
    return {"tokens": words, "tags": rng.choice(["O", "B-X"], len(words)).tolist()}


def _chat(rng: np.random.Generator, i: int) -> dict[str, Any]:
    turns = [("user", " ".join(_words(rng, 5))), ("assistant", " ".join(_words(rng, 4)))]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


TASKS: dict[str, tuple[Any, str, list[str], str]] = {
    "number": (_number, "tiny_model", ["data.label_kind=number"], "mae"),
    "several": (_several, "tiny_model", ["data.label_kind=several"], "f1_micro"),
    "tags": (_tags, "tiny_model", ["data.labels=exact"], "entity_f1"),
    "chat": (
        _chat,
        "tiny_llama",
        ["data.template=chatml", "generate.max_new_tokens=4", "generate.rows=6"],
        "rouge_l",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_taught(
    holdfast: Any, request: pytest.FixtureRequest, tmp_path: Path, task: str
) -> None:
    make, model, more, metric = TASKS[task]
    rows, name = _lines(tmp_path / "rows.jsonl", make), request.getfixturevalue(model)
    few = [*PLAIN, "train.max_steps=4", "train.batch_size=8"]
    run = train([f"data.path={rows}", f"model.name={name}", *few, *more], tmp_path / "teacher")
    asked = ["--layers", 1, "--out", tmp_path / "s", *sets(*few, "distill.alone=false"), "--json"]
    done = holdfast("distill", run, *asked)
    assert done.code == 0, done.err
    block = json.loads(done.out)["distilled"]
    assert block["metric"] == metric
    assert block["teacher"]["value"] is not None
    if task == "chat":
        # Teachers that are asked at every pass, and timed together.
        again = ["seed=1", "data.split.seed=0", f"data.path={rows}", f"model.name={name}"]
        other = train([*again, *few, *more], tmp_path / "other")
        taught = [*asked[:2], "--out", tmp_path / "two", *asked[4:]]
        done = holdfast("distill", run, other, *taught)
        assert done.code == 0, done.err
        block = json.loads(done.out)["distilled"]
        assert block["speed"]["value"] > 0
    done = holdfast("distill", run, *asked[:2], "--unlabelled", rows, "--out", tmp_path / "u")
    if task in ("number", "several"):
        # Every text of it is a row of the source.
        assert done.code == 0, done.err
    else:
        assert done.code == 2
        assert "is not supported for" in done.err


@pytest.mark.slow
def test_blocks_may_be_held_to_the_teachers(
    holdfast: Any, finished_run: Path, student: Path, letters_model: Path, tmp_path: Path
) -> None:
    more = sets(*SHORT, "distill.alone=false", "distill.hidden=1", "distill.attention=1")
    asked = ["--layers", 1, *more, "--out", tmp_path / "s", "--quiet"]
    done = holdfast("distill", finished_run, *asked)
    assert done.code == 0, done.err
    weights = "model/model.safetensors"
    assert digest(tmp_path / "s" / weights) != digest(student / weights)
    done = holdfast("distill", finished_run, "--student", letters_model, *more, "--quiet")
    assert done.code == 2
    assert "distill.hidden" in done.err
