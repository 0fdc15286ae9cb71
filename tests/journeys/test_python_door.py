"""What a Python program does: everything in one process, rows in memory, one answer a row."""

from __future__ import annotations

import copy
import gc
import html
import json
import math
import pickle
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as parquet
import pytest

import holdfast
from holdfast.api.command_result import COLUMNS
from holdfast.core.errors import DataError, InputError, RecipeError, RunError
from holdfast.core.labels import verdict_title
from holdfast.data.scratch import scratch_file
from holdfast.recipe import as_settings
from holdfast.report.answer.answer import answer
from holdfast.runs.finished_run import FinishedRun

pd = pytest.importorskip("pandas")

SESSION = """
import json, sys
import holdfast
rows, model, out = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
settings = {"model.name": model, "train.max_steps": 4, "train.threads": 1,
            "train.matmul": "default", "methods.contrast": False}
texts, labels = [r[0] for r in rows], [r[1] for r in rows]
guard = holdfast.Guard()
one = holdfast.train(texts, labels, out=out + "/1", settings=settings, quiet=True)
two = holdfast.train(texts, labels, out=out + "/2", settings=settings, quiet=True, seed=1)
classifier = holdfast.TextClassifier(model, settings).fit(texts, labels)
three = holdfast.train(texts, labels, out=out + "/3", settings=settings, quiet=True)
verdict = holdfast.diagnose(one.folder)
assert isinstance(holdfast.Guard(), holdfast.Guard)
assert not [name for name in sys.modules if name.startswith("holdfast.cli")]
print(json.dumps([len(one.predict(texts[:3])), two.result["seed"], len(classifier.predict(texts)),
                  one.result["test"]["metrics"] == three.result["test"]["metrics"],
                  isinstance(verdict.label, str)]))
"""


def settings_of(quick: list[str]) -> dict[str, Any]:
    pairs = [setting.partition("=") for setting in quick]
    numbers = {
        "train.epochs": 3,
        "train.threads": 1,
        "methods.contrast.steps": 3,
        "train.learning_rate": 1e-3,
    }
    return {key: numbers.get(key, value) for key, _, value in pairs}


@pytest.fixture(scope="module")
def frame(marked_rows: Any) -> Any:
    rows = marked_rows(80)
    return pd.DataFrame(
        {
            "id": [f"r{n}" for n in range(80)],
            "text": [text for text, _ in rows],
            "label": [label for _, label in rows],
        },
        index=range(500, 580),
    )


@pytest.fixture(scope="module")
def run(
    frame: Any, quick: list[str], tmp_path_factory: pytest.TempPathFactory
) -> holdfast.TrainedRun:
    folder = tmp_path_factory.mktemp("doors") / "run"
    return holdfast.train(
        frame, text="text", label="label", out=folder, settings=settings_of(quick), quiet=True
    )


@pytest.mark.slow
def test_every_door_opens_again_and_again_in_one_process(
    marked_rows: Any, tiny_model: Path, tmp_path: Path
) -> None:
    given = [sys.executable, "-c", SESSION, json.dumps(marked_rows(60)), str(tiny_model)]
    done = subprocess.run([*given, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [3, 1, 60, True, True]


@pytest.mark.slow
def test_a_frame_is_stored_and_its_recipe_repeats_the_run(
    run: holdfast.TrainedRun, frame: Any, tmp_path: Path
) -> None:
    stored = run.folder / "data.parquet"
    assert parquet.read_table(stored).to_pydict() == frame.to_dict("list")
    assert run.result["settings"]["data"]["path"] == str(stored.resolve())
    again = holdfast.train(run.folder / "recipe.yaml", out=tmp_path / "again", quiet=True)
    assert again.result["test"]["metrics"] == run.result["test"]["metrics"]


@pytest.mark.slow
def test_a_dict_and_a_list_of_settings_are_the_same_run(
    run: holdfast.TrainedRun, frame: Any, quick: list[str], tmp_path: Path
) -> None:
    listed = holdfast.train(
        frame, text="text", label="label", out=tmp_path / "r", settings=quick, quiet=True
    )
    assert listed.result["settings"]["train"] == run.result["settings"]["train"]
    assert listed.result["test"]["metrics"] == run.result["test"]["metrics"]
    assert as_settings({"train": {"epochs": 3, "clip": None}, "seed": 1, "methods.sam": True}) == [
        *("train.epochs=3", "train.clip=null", "seed=1", "methods.sam=true")
    ]
    nested = {"model": {"adapter": {"kind": "lora"}}, "methods": {"contrast": {"steps": 3}}}
    assert as_settings(nested) == [*('model.adapter.kind="lora"', 'methods.contrast={"steps": 3}')]
    with pytest.raises(RecipeError, match="is one string"):
        holdfast.train(frame, settings="train.epochs=5")


@pytest.mark.slow
def test_other_tables_and_given_test_rows_are_taken(
    frame: Any, quick: list[str], marked_rows: Any, tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_pandas(frame[["text", "label"]], preserve_index=False)
    coded = rows.class_encode_column("label")
    tests = [{"text": text, "label": label} for text, label in marked_rows(24, seed=7)]
    trained = holdfast.train(coded, test=tests, out=tmp_path / "r", settings=quick, quiet=True)
    assert trained.result["classes"] == ["no", "yes"]
    assert trained.result["test"]["n"] == 24
    assert (trained.folder / "test.parquet").exists()


def test_what_cannot_be_trained_on_leaves_nothing_behind(tmp_path: Path, frame: Any) -> None:
    with pytest.raises(DataError):
        holdfast.train(frame.assign(label="one"), out=tmp_path / "r", text="text", quiet=True)
    assert not (tmp_path / "r").exists()
    with pytest.raises(DataError, match="have no labels"):
        holdfast.train(["a text", "another"])
    with pytest.raises(DataError, match="number 2, but there are 1 labels"):
        holdfast.train(["a text", "another"], ["x"])
    with pytest.raises(DataError, match="only be given with a list of texts"):
        holdfast.train("rows.csv", ["x"])
    with pytest.raises(DataError, match="several tables"):
        holdfast.train({"train": frame, "test": frame})


def test_one_answer_a_row_for_whatever_holds_rows(run: holdfast.TrainedRun, frame: Any) -> None:
    texts = frame["text"].tolist()[:5]
    told = run.predict(texts)
    assert len(told) == 5
    assert set(told) <= {"no", "yes"}
    for same in (
        frame[["text"]][:5],
        frame[:5],
        frame["text"][:5],
        np.array(texts),
        tuple(texts),
        [{"text": t, "other": 1} for t in texts],
    ):
        assert run.predict(same) == told
    assert run.predict(frame[:5].rename(columns={"text": "words"}), text="words") == told
    assert run.predict(texts[0]) == told[:1]
    assert run.predict(["", *texts, None]) == ["", *told, ""]
    assert run.predict([]) == []


def test_predictions_have_the_type_of_the_labels_in_memory(
    frame: Any, quick: list[str], tmp_path: Path
) -> None:
    """Strings would equal no label: an accuracy of 0 without a word."""
    truth = frame.label == "yes"
    numbers = frame.assign(label=truth.astype(int) * 7)
    run = holdfast.train(
        numbers, text="text", label="label", out=tmp_path / "r", settings=quick, quiet=True
    )
    assert run.classes == [0, 7]
    predicted = run.predict(numbers)
    assert {type(one) for one in predicted} == {int}
    assert (
        np.mean(predicted == numbers.label) == run.evaluate(numbers)["metrics"]["accuracy"]["value"]
    )
    assert run.predictions(numbers)[0].prediction in ("0", "7")
    with pytest.raises(RunError, match="began with other rows"):
        holdfast.train(numbers[1:], out=tmp_path / "r", text="text", resume=True, quiet=True)
    again = [*quick, "train.epochs=9"]
    with pytest.warns(UserWarning, match=r"Ignored: train\.epochs=9.0 \(the run uses 3"):
        holdfast.train(numbers, out=tmp_path / "r", settings=again, resume=True, quiet=True)


def test_a_resumed_run_warns_of_every_option_that_it_does_not_use(
    run: holdfast.TrainedRun, frame: Any, quick: list[str], tmp_path: Path
) -> None:
    def resumed(*source: Any, **options: Any) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            given = {"settings": settings_of(quick), "text": "text", "label": "label"} | options
            again = holdfast.train(*source, out=run.folder, resume=True, quiet=True, **given)
        assert again.result == run.result
        texts = [str(one.message) for one in caught if "Ignored" in str(one.message)]
        return re.findall(r"([\w.]+)=[^=]* \(the run uses", " ".join(texts))

    frame.to_csv(other := tmp_path / "other.csv", index=False)
    assert resumed(frame) == resumed(frame, task="text-classification") == []
    assert resumed(other) == ["data.path"]
    assert resumed(frame, test=other) == ["data.test"]
    assert resumed(frame, text="id", label="text", group="id") == [
        "data.text",
        "data.label",
        "data.group",
    ]
    seed = run.result["seed"]
    options = {"model": "embedded", "task": "seq2seq", "seed": seed + 1, "settings": {}}
    assert resumed(frame, **options) == ["model.name", "task", "seed"]
    assert resumed(frame, seed=seed) == []


def test_what_could_be_meant_otherwise_is_refused(run: holdfast.TrainedRun, frame: Any) -> None:
    with pytest.raises(DataError, match="could be a text or the name of a file"):
        run.predict("later.csv")
    assert len(run.predict(["later.csv"])) == 1
    mixed = frame.label.sample(frac=1, random_state=1)
    with pytest.raises(DataError, match="in another order"):
        holdfast.train(frame.text, mixed)
    other = frame.label.set_axis([0, 1, 1, *range(2, 79)])
    # Not the same index: these are paired by position.
    assert run.evaluate(frame.text.set_axis([0, 0, 1, *range(2, 79)]), other)["n"] == 80
    with pytest.raises(DataError, match="in another order"):
        run.evaluate(frame.text, mixed)
    assert run.evaluate(frame.text, mixed.tolist())["n"] == 80
    with pytest.raises(DataError, match="in another order"):
        holdfast.TextClassifier().fit(frame.text, mixed)


def test_a_run_in_use_needs_no_current_folder(
    run: holdfast.TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.folder.parent)
    relative = holdfast.TrainedRun(run.folder.name)
    assert f"({run.folder.name};" in repr(relative)
    monkeypatch.chdir(tmp_path)
    assert relative.result == run.result


def test_every_analysis_takes_the_run_itself(run: holdfast.TrainedRun, frame: Any) -> None:
    assert holdfast.diagnose(run).label == run.verdict["label"]
    assert holdfast.fairness(run) == holdfast.fairness(run.folder)
    other = holdfast.TrainedRun(shutil.copytree(run.folder, run.folder.parent / "copy"))
    compared = holdfast.compare(run, other, frame.assign(label=frame.label))
    assert compared.verdict.verdict in ("undecided", "equivalent")


def test_a_log_in_memory_is_the_same_as_its_file(tmp_path: Path) -> None:
    entries = [
        {"step": step, "loss": 1 / step, "eval_loss": 0.5 + 0.03 * step} for step in range(1, 20)
    ]
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"log_history": entries}))
    filed = holdfast.diagnose(path)
    assert filed.label == "overfit"
    for log in (entries, {"log_history": entries}):
        assert holdfast.diagnose(log) == filed
    columns = {name: [one[name] for one in entries] for name in ("loss", "eval_loss")}
    for log in (columns, pd.DataFrame(columns)):
        assert holdfast.diagnose(log).label == "overfit"
    broken = [*entries, {"step": 20, "loss": math.nan, "eval_loss": math.nan}]
    assert holdfast.diagnose(broken).label != "overfit"
    assert holdfast.diagnose(SimpleNamespace(history=columns)).label == "overfit"
    for wrong in (3, object(), [], [1]):
        with pytest.raises(DataError, match="the log"):
            holdfast.diagnose(wrong)


def test_a_notebook_shows_the_callers_line_and_the_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shell = pytest.importorskip("IPython.core.interactiveshell").InteractiveShell()
    shell.run_cell("import holdfast\n\ndef go():\n    holdfast.train(['a text'], ['x', 'y'])\ngo()")
    shown = capsys.readouterr().out
    assert "holdfast.train(['a text'], ['x', 'y'])" in shown
    assert "DataError: the texts: number 1, but there are 2 labels" in shown
    assert "Give one label for each text." in shown
    assert len(shown.strip().splitlines()) <= 6
    shell.run_cell("from holdfast.core.errors import Defect\nraise Defect('here', 'is a bug')")
    assert "Traceback" in capsys.readouterr().out


def test_probabilities_are_those_of_the_answers(run: holdfast.TrainedRun, frame: Any) -> None:
    texts = frame["text"].tolist()[:5]
    chances = run.predict_proba([*texts, " "])
    assert chances.shape == (6, 2)
    assert np.isnan(chances[5]).all()
    np.testing.assert_allclose(chances[:5].sum(axis=1), 1, atol=1e-9)
    classes = run.classes
    assert classes is not None
    assert [classes[k] for k in chances[:5].argmax(axis=1)] == run.predict(texts)


def test_evaluate_takes_rows_in_memory(run: holdfast.TrainedRun, marked_rows: Any) -> None:
    rows = marked_rows(30, seed=11)
    texts, labels = [t for t, _ in rows], [label for _, label in rows]
    by_lists = run.evaluate(texts, labels)
    by_frame = run.evaluate(pd.DataFrame({"words": texts, "y": labels}), text="words", label="y")
    assert by_lists["n"] == 30
    assert by_lists["metrics"] == by_frame["metrics"]
    right = np.mean([a == b for a, b in zip(run.predict(texts), labels, strict=True)])
    assert by_lists["metrics"]["accuracy"]["value"] == pytest.approx(right)
    with pytest.raises(DataError, match=r"the data frame: has no column 'text'.*\n.*text="):
        run.evaluate(pd.DataFrame({"words": texts, "y": labels}))


OTHER_FRAME = pd.DataFrame({"a": [1, 2], "b": [3, 4]})


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("the rows", lambda run, _: holdfast.audit(OTHER_FRAME)),
        ("against 1", lambda run, frame: holdfast.audit(frame, against=OTHER_FRAME, text="text")),
        ("the data frame", lambda run, _: holdfast.update(run, OTHER_FRAME, quiet=True)),
        ("the data frame", lambda run, _: holdfast.lr(OTHER_FRAME)),
        ("the data frame", lambda run, _: holdfast.dry_run(OTHER_FRAME)),
        ("the data frame", lambda run, _: holdfast.drift(run, OTHER_FRAME)),
        ("the data frame", lambda run, _: holdfast.explain(run, OTHER_FRAME)),
    ],
)
def test_errors_name_the_data_frame_not_its_file(
    run: holdfast.TrainedRun, frame: Any, name: str, call: Any
) -> None:
    with pytest.raises(DataError) as caught:
        call(run, frame)
    assert caught.value.what == name


def test_results_name_the_data_frame_not_its_file(run: holdfast.TrainedRun, frame: Any) -> None:
    explained = holdfast.explain(run, frame, rows=1)
    assert explained.source == explained.to_json()["source"] == "the data frame"
    assert holdfast.drift(run, frame).data == "the data frame"
    assert holdfast.drift(run, frame.text).data == "the list"


def test_a_run_shows_itself_in_a_notebook(run: holdfast.TrainedRun) -> None:
    shown = run._repr_html_()
    accuracy = run.result["test"]["metrics"]["accuracy"]["value"]
    assert f"{100 * accuracy:.1f}\u00a0%" in shown
    assert verdict_title(run.verdict["label"]) in shown
    assert answer(run.result).headline in html.unescape(shown)
    assert "<script" not in shown
    assert shown.count("<figure") == 2
    missing = holdfast.TrainedRun(run.folder / "nothing")._repr_html_()
    assert "result.json" in missing


def test_a_notebook_shows_what_a_command_prints(
    run: holdfast.TrainedRun,
    marked_rows: Any,
    write_csv: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    command = request.getfixturevalue("holdfast")
    rows = write_csv(tmp_path / "rows.csv", [*marked_rows(30, seed=5), ("<b>bold</b>", "no")])
    folder = shutil.copytree(run.folder, tmp_path / "run")
    shown = {
        ("errors", folder): holdfast.errors(folder),
        ("probe", folder): holdfast.probe(folder),
        ("fairness", folder): holdfast.fairness(folder),
        ("evaluate", folder, rows): holdfast.TrainedRun(folder).evaluate(rows),
        ("threshold", folder, "--coverage", 0.9): holdfast.threshold(folder, coverage=0.9),
    }
    for arguments, result in shown.items():
        (folder / "threshold.json").unlink(missing_ok=True)
        printed = command(*arguments).out
        found = result._repr_html_()
        assert "<" not in found.removeprefix("<pre>").removesuffix("</pre>")
        assert html.unescape(found) == f"<pre>{printed.rstrip()}</pre>"
        again = pickle.loads(pickle.dumps(result))
        assert again == result == json.loads(json.dumps(result))
        assert again._repr_html_() == found


def test_a_plan_is_that_of_the_dry_run(
    marked_rows: Any, quick: list[str], write_csv: Any, tmp_path: Path, request: Any
) -> None:
    command, given = request.getfixturevalue("holdfast"), marked_rows(80)
    settings = [part for one in quick for part in ("--set", one)]
    path = write_csv(tmp_path / "rows.csv", given)
    printed = json.loads(command("train", path, *settings, "--dry-run", "--json").out)
    texts, labels = [text for text, _ in given], [label for _, label in given]
    texts[3] = ""
    counted = holdfast.dry_run(texts, labels, settings=[*quick, "train.folds=2"])._repr_html_()
    assert "80: training and validation 67 (cross-fitting), test 12; 1 removed" in counted
    assert "without &#x27;text&#x27;: dropped" in counted
    assert "--quiet" not in counted
    texts[3] = given[3][0]
    found = holdfast.dry_run(texts, labels, settings=quick)
    for key in ("rows", "classes", "division", "parameters", "phases", "evaluate_at"):
        assert found[key] == printed[key]
    assert "80: training" in found._repr_html_()
    folds = holdfast.dry_run(path, settings=[*quick, "cv.folds=3"])
    assert len(folds["folds"]) == 3
    assert "3 folds" in folds._repr_html_()
    assert list(tmp_path.iterdir()) == [path]


def test_a_finished_run_is_opened_by_its_name(run: holdfast.TrainedRun, tmp_path: Path) -> None:
    opened = holdfast.TrainedRun(str(run.folder))
    assert opened.result == run.result
    with pytest.raises(RunError, match="is not a folder"):
        _ = holdfast.TrainedRun(tmp_path / "nothing").result


@pytest.mark.slow
def test_a_run_that_was_moved_finds_the_rows_that_it_stored(
    run: holdfast.TrainedRun, tmp_path: Path
) -> None:
    """Its recipe names the folder in which it was made."""
    moved = shutil.copytree(run.folder, tmp_path / "moved")
    finished = FinishedRun(moved)
    assert finished.recipe.data.path == str(moved / "data.parquet")
    assert finished.train_rows.source == str(moved / "data.parquet")
    assert len(finished.train_rows) == len(FinishedRun(run.folder).train_rows)


def test_asking_again_and_again_fills_no_disk(run: holdfast.TrainedRun, frame: Any) -> None:
    """A program that asks for days has the files of what it is reading now, and no others."""
    texts = frame["text"].to_list()[:4]

    def ask() -> int:
        run.predict(texts)
        run.predict_proba(frame.head(4))
        run.evaluate(frame.head(30))
        gc.collect()
        return len(list(scratch_file("any").parent.iterdir()))

    first = ask()
    assert [ask() for _ in range(3)] == [first] * 3


def test_a_run_is_copied_and_sent_to_another_process(run: holdfast.TrainedRun, frame: Any) -> None:
    texts = frame["text"].to_list()[:4]
    answers = run.predict(texts)
    for other in (pickle.loads(pickle.dumps(run)), copy.deepcopy(run)):
        assert other == run
        assert other.predict(texts) == answers


def test_one_record_is_not_taken_for_its_names(run: holdfast.TrainedRun) -> None:
    """The keys of a dictionary would be answered as if they were texts."""
    for one in ({"text": "good"}, datasets.DatasetDict({"train": datasets.Dataset.from_list([])})):
        with pytest.raises(DataError, match="dictionary"):
            run.predict(one)
    assert len(run.predict([{"text": "good"}])) == 1


def test_what_is_no_table_is_refused_in_the_words_of_python(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": ["a", "b"] * 20, "label": ["x", "y"] * 20})
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (rows.to_iterable_dataset(), {}, "cannot be split"),
        (datasets.DatasetDict({"train": rows}), {}, "several tables"),
        (rows, {"settings": 5}, "neither a dict nor a list"),
        (rows, {"settings": {"train.epochs": "x"}}, "^settings: train.epochs"),
        (rows, {"seed": -1}, "^settings: seed"),
    ]
    for source, more, rule in cases:
        with pytest.raises(InputError, match=rule):
            holdfast.train(source, out=tmp_path / "run", quiet=True, **more)
        assert not (tmp_path / "run").exists()


def test_a_model_may_be_named_by_a_path(frame: Any, quick: list[str], tmp_path: Path) -> None:
    settings = settings_of(quick)
    model = Path(settings.pop("model.name"))
    run = holdfast.train(frame, model=model, out=tmp_path / "run", settings=settings, quiet=True)
    assert (run.folder / "model").is_dir()


TEXTS = [f"text {number} of a few words" for number in range(12)]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda path: holdfast.dry_run(path, groups=["a"]), "groups: can only be given with"),
        (lambda path: holdfast.audit(path, groups=["a"]), "groups: can only be given with"),
        (
            lambda _: holdfast.audit({"text": TEXTS, "label": ["a", "b"] * 6}, groups=TEXTS),
            "groups: can only be given with .* a table",
        ),
        (lambda path: holdfast.cv(path, repeats=0), "cv.repeats"),
        (lambda path: holdfast.cv(path, folds=0), "cv.folds"),
        (lambda _: holdfast.distill([]), "runs: is empty"),
        (lambda path: holdfast.fairness(path, rows=-1), "rows: must be 0 or more"),
        (lambda path: holdfast.compare(path, path, margin="a"), "margin: must be a number"),
        (lambda path: holdfast.compare(None, path), "the run: must be the folder of a run"),
        (lambda path: holdfast.threshold(path, precision="0.9"), "precision: must be a number"),
        (lambda path: holdfast.update(path, path, hold="a"), "hold: must be a number"),
        (lambda path: holdfast.drift(path, path, between_alarms="a"), "must be a whole number"),
        (lambda path: holdfast.chat(path, temperature="a"), "temperature: must be a number"),
        (lambda path: holdfast.explain(path, path, rows=1.5), "rows: must be a whole number"),
        (lambda _: holdfast.Guard(seed=-1), "seed=….: must be an integer"),
        (lambda _: holdfast.diagnose({"loss": [1, 2, 3]}, train="x"), "numeric column of the log"),
        (lambda path: holdfast.fairness(path, rows=1.5), "rows: must be a whole number"),
        (
            lambda _: holdfast.TextClassifier(settings={"seed": 3}).fit(TEXTS, ["a", "b"] * 6),
            "seed: is the random_state",
        ),
        (
            lambda _: holdfast.TextClassifier(settings={"task": "x"}).fit(TEXTS, ["a", "b"] * 6),
            "task: is the task",
        ),
    ],
)
def test_what_the_command_refuses_is_refused(
    call: Callable[[str], Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        "text,label\n" + "".join(f"{one},{'ab'[i % 2]}\n" for i, one in enumerate(TEXTS))
    )
    with pytest.raises(holdfast.InputError, match=said):
        call(str(path))


def test_groups_without_labels_are_groups() -> None:
    columns = holdfast.audit(TEXTS, groups=["x", "y", "z"] * 4).columns
    assert (columns["label"], columns["group"]) == (None, "group")
