"""The one way to use a trained model: loaded once, asked often, by whom you like."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast.contract import inference
from holdfast.contract.inference import InferenceOptions
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Outputs
from holdfast.data.memory.texts import table_from_texts
from holdfast.recipe import DataPart
from holdfast.runs.predictor import Predictor
from holdfast.tasks.classes import answers as text_use
from holdfast.tasks.classes.classifier import class_answers

RECORDS = {
    "classes": (inference.ClassPredictions, str),
    "several": (inference.LabelSetPredictions, list),
    "number": (inference.NumberPredictions, float),
    "seq2seq": (inference.TextPredictions, str),
    "causal": (inference.TextPredictions, str),
    "pictures": (inference.ClassPredictions, str),
}


def new_rows(old_runs: Path, task: str) -> str:
    return str(old_runs / "rows" / ("pictures-new" if task == "pictures" else f"{task}-new.jsonl"))


@pytest.mark.parametrize("task", RECORDS)
def test_each_kind_of_task_has_a_record_of_its_answers(old_runs: Path, task: str) -> None:
    predictor = Predictor.load(old_runs / "runs" / task)
    table = predictor.read_rows(new_rows(old_runs, task)).table
    found = predictor.predict_table(table)
    record, kind = RECORDS[task]
    assert type(found) is record
    assert len(found.predictions) == len(found.confidence) == len(table) == 12
    assert {type(one) for one in found.predictions} == {kind}
    chances = found.probabilities
    assert (chances is None) == (not predictor.names)
    if chances is not None:
        assert chances.shape == (12, len(predictor.names))
        assert ((chances >= 0) & (chances <= 1)).all()


@pytest.mark.parametrize("task", RECORDS)
def test_a_record_a_row_says_what_the_table_says(
    old_runs: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The rows come in parts of 5, of which the last is not full.
    monkeypatch.setattr("holdfast.runs.prediction_file.PART_ROWS", 5)
    predictor = Predictor.load(old_runs / "runs" / task)
    asked = bool(predictor.names)
    found = list(predictor.predict(new_rows(old_runs, task), probabilities=asked))
    said = (old_runs / "said" / task / "predict.jsonl").read_text("utf-8").splitlines()
    for one, row in zip(found, map(json.loads, said), strict=True):
        assert one.row == row["row"]
        if task == "number":
            assert one.prediction == pytest.approx(row["prediction"], rel=1e-4)
            assert one.confidence is None
            continue
        assert one.prediction == row["prediction"]
        assert one.confidence == pytest.approx(row["confidence"], abs=1e-4)
        if task in ("classes", "pictures"):
            assert one.probabilities is not None
            assert max(one.probabilities, key=one.probabilities.__getitem__) == one.prediction
            assert sum(one.probabilities.values()) == pytest.approx(1)


def test_a_row_without_an_answer_says_why(old_runs: Path, tmp_path: Path) -> None:
    run = holdfast.TrainedRun(old_runs / "runs" / "pictures")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    good = next((old_runs / "rows" / "pictures-new" / "dark").iterdir())
    found = run.predictions([str(good), str(tmp_path / "broken.png")])
    assert found[0].because is None
    assert found[0].probabilities is not None
    assert found[1].because == "the image cannot be read"
    assert (found[1].prediction, found[1].confidence, found[1].probabilities) == (None, None, None)


def test_it_is_loaded_once_and_threads_may_ask_it_together(
    old_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    load = text_use.load_saved
    monkeypatch.setattr(text_use, "load_saved", lambda *a: loads.append(a) or load(*a))
    predictor = Predictor.load(old_runs / "runs" / "classes")
    rng = np.random.default_rng(0)
    # Of very different lengths: a tokenizer keeps its padding as a state.
    asked = [[" ".join(["w1", "good", *["w2"] * int(n)])] * 3 for n in rng.integers(1, 50, 24)]
    alone = [[p.confidence for p in predictor.predict(texts)] for texts in asked]
    with ThreadPoolExecutor(8) as pool:
        together = list(
            pool.map(lambda texts: [p.confidence for p in predictor.predict(texts)], asked)
        )
    assert together == alone
    assert len(loads) == 1


class Busy:
    """A model that notes how many ask it at once."""

    prediction_type, names = "number", ()

    def __init__(self) -> None:
        self.asking, self.most = 0, 0

    def predict(self, table: Any) -> inference.NumberPredictions:
        self.asking += 1
        self.most = max(self.most, self.asking)
        time.sleep(0.01)
        self.asking -= 1
        return inference.NumberPredictions(np.zeros((1, 1)))

    def scorer(self, table: Any) -> Any:
        self.predict(table)
        return lambda positions=None: self.predict(table)


def test_a_model_is_asked_by_one_thread_at_a_time() -> None:
    model: Any = Busy()
    predictor = Predictor(model, DataPart())
    table: Any = None
    score = predictor.judge(table)
    ask = [lambda: predictor.predict_table(table), lambda: predictor.judge(table), score] * 5
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda one: one(), ask))
    assert model.most == 1


def test_models_are_averaged_class_by_class_in_whatever_order_they_have_them() -> None:
    """Against the mean of the probabilities by name."""
    chances = {"one": {"a": 0.7, "b": 0.2, "c": 0.1}, "two": {"a": 0.1, "b": 0.3, "c": 0.6}}
    orders = {"one": ("a", "b", "c"), "two": ("c", "a", "b")}

    @dataclass(frozen=True)
    class Model:
        name: str
        classes: tuple[str, ...]

    def answer(model: Model, table: Any) -> Outputs:
        row = np.log([[chances[model.name][c] for c in model.classes]])
        logits = np.repeat(row, len(table), axis=0)
        return Outputs(np.arange(len(table)), np.full(len(table), -1), logits, np.zeros(len(table)))

    models = [Model(name, order) for name, order in orders.items()]
    table = table_from_texts(["w1", "w2"])
    found = class_answers(models, answer, table)
    assert found.names == ("a", "b", "c")
    np.testing.assert_allclose(found.probabilities, [[0.4, 0.25, 0.35]] * 2)
    np.testing.assert_allclose(found.outputs.probabilities, found.probabilities)
    assert found.predictions == ["a", "a"]


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_missing_file_is_told_before_a_model_is_loaded(
    old_runs: Path, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from holdfast.analyses import evaluation

    def never(*arguments: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(text_use, "load_saved", never)
    runs = [old_runs / "runs" / "classes"]
    with pytest.raises(DataError, match="does not exist"):
        getattr(evaluation, command)(runs, str(tmp_path / "missing.csv"))


def test_labelled_rows_are_scored_by_the_same_answers(old_runs: Path) -> None:
    """The accuracy of evaluate is the share of rows that predict gets right, and of the average of
    two runs the mean probability decides."""
    runs = [old_runs / "runs" / "classes"] * 2
    for given in (runs[:1], runs):
        predictor = Predictor.load(given)
        table = predictor.read_labelled_rows(new_rows(old_runs, "classes")).table
        score = predictor.judge(table)
        labels = [predictor.names[k] for k in table.column("label")]
        right = np.array(predictor.predict_table(table).predictions) == np.array(labels)
        assert score().metrics["accuracy"].value == pytest.approx(right.mean())
        some = np.array([0, 3, 5])
        assert score(some).metrics["accuracy"].value == pytest.approx(right[some].mean())
        assert score(some).n == 3


def test_python_reads_within_the_run_s_limits_or_those_that_are_given(
    old_runs: Path, tmp_path: Path
) -> None:
    run = holdfast.TrainedRun(old_runs / "runs" / "classes")
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "good " * 900, "label": "yes"}) + "\n", "utf-8")
    small = {"data.limits.cell_mb": 0.001}
    assert run.predict(path) == ["yes"]
    for evaluation in (run.predict, run.predict_proba, run.predictions, run.evaluate):
        with pytest.raises(DataError, match=r'settings=\{"data.limits.cell_mb": …\}'):
            evaluation(path, settings=small)
    assert run.evaluate(path, settings=["data.limits.cell_mb=9"])["n"] == 1
    with pytest.raises(RecipeError, match="settings: names a key that using a run does not have"):
        run.predict(path, settings={"train.epochs": 3})


def test_errors_in_python_name_parameters(old_runs: Path, tmp_path: Path) -> None:
    run = holdfast.TrainedRun(old_runs / "runs" / "classes")
    path = tmp_path / "rows.csv"
    path.write_bytes("words,y\ncafé,no\n".encode("cp1252"))
    with pytest.raises(DataError) as told:
        run.predict(path)
    assert "--" not in str(told.value)
    assert 'encoding="' in told.value.remedy
    with pytest.raises(DataError, match="text="):
        run.predict(path, encoding="cp1252")
    assert run.predict(path, encoding="cp1252", text="words")
    with pytest.raises(DataError, match="label=…"):
        holdfast.train({"text": ["a b"] * 9, "label": [1] * 9}, out=tmp_path / "r", quiet=True)


def test_a_predictor_reads_as_it_is_told(old_runs: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(old_runs / "runs" / "classes")
    path = tmp_path / "rows.csv"
    path.write_text("words\ngood w1\n\n", "utf-8")
    with pytest.raises(DataError, match="--text"):
        predictor.read_rows(str(path))
    assert len(predictor.read_rows(str(path), InferenceOptions(text=("words",))).table) == 1
