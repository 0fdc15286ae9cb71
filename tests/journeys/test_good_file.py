"""One good file, all the way: the run folder, and everything that is done with it afterwards."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
import yaml

from holdfast.recipe import known_keys, read_recipe

NUMBER = (int, float)
METRICS = ("accuracy", "f1_macro", "loss", "ece", "precision_macro", "recall_macro")
LABELS = {
    "learning",
    "healthy",
    "underfit",
    "overfit",
    "memorizing",
    "miscalibrated",
    "diverging",
    "leaking",
    "noisy_labels",
    "forgetting",
    "inconclusive",
}


def check(value: Any, shape: Any, where: str = "result") -> None:
    """Hold a JSON value against a shape: a type, a tuple of types, a set of values, ``[shape]``,
    ``{key: shape}`` (more keys may be there), or a function."""
    if isinstance(shape, dict):
        assert isinstance(value, dict), where
        for key, inner in shape.items():
            assert key in value, f"{where}.{key} is missing"
            check(value[key], inner, f"{where}.{key}")
    elif isinstance(shape, list):
        assert isinstance(value, list), where
        for index, item in enumerate(value):
            check(item, shape[0], f"{where}[{index}]")
    elif isinstance(shape, set):
        assert value in shape, f"{where}: {value!r}"
    elif isinstance(shape, (type, tuple)):
        assert isinstance(value, shape), f"{where}: {value!r}"
        assert not isinstance(value, float) or math.isfinite(value), where
    else:
        shape(value, where)


def estimate(value: Any, where: str) -> None:
    if value.get("value") is None:
        check(value, {"low": type(None), "high": type(None), "why": str}, where)
    else:
        check(value, {"value": NUMBER, "level": NUMBER, "low": (*NUMBER, type(None))}, where)
        if value["low"] is not None:
            assert value["low"] <= value["value"] <= value["high"], where


def scores(value: Any, where: str) -> None:
    check(value, {"n": int, "metrics": dict}, where)
    for name in METRICS[:4]:
        assert name in value["metrics"], f"{where}.{name}"
    for name, inner in value["metrics"].items():
        estimate(inner, f"{where}.{name}")


def share(value: Any, where: str) -> None:
    assert 0 <= value <= 1, where


NONE = type(None)
FINDING = {
    "check": str,
    "severity": {"info", "warn", "error"},
    "score": share,
    "count": int,
    "rows": [int],
    "because": str,
    "remedy": str,
    "fixed": bool,
}
VERDICT = {
    "label": LABELS,
    "since_step": (int, NONE),
    "confidence": share,
    "cause": (str, NONE),
    "because": str,
    "remedies": [{"do": str, "set": [str]}],
    "evidence": [
        {
            "name": str,
            "value": (*NUMBER, NONE),
            "low": (*NUMBER, NONE),
            "high": (*NUMBER, NONE),
            "at_step": (int, NONE),
        }
    ],
}
RESULT = {
    "schema": {1},
    "holdfast": str,
    "task": {"text-classification"},
    "model": str,
    "classes": [str],
    "seed": int,
    "data": {
        "rows": int,
        "used": int,
        "train": int,
        "valid": int,
        "test": int,
        "findings": [FINDING],
    },
    "test": scores,
    "valid": scores,
    "train_probe": scores,
    "baseline": {"what": {"majority class", "linear probe"}, "test": scores},
    "verdict": VERDICT,
    "best_step": int,
    "last_step": int,
    "stopped_because": str,
    "actions": [{"step": int, "action": str, "because": str}],
    "probes": {"memorization": (dict, NONE), "forgetting": (dict, NONE)},
    "timing": {
        "total_s": NUMBER,
        "train_s": NUMBER,
        "evaluate_s": NUMBER,
        "guard_s": NUMBER,
        "examples_per_s": NUMBER,
    },
    "peak_memory_mb": NUMBER,
    "created": str,
    "decisions": [{"what": str, "chosen": str, "because": str}],
    "hardest": {"loss": list, "confidently_wrong": list},
    "settings": dict,
    "versions": dict,
}


@pytest.fixture(scope="module")
def result(finished_run: Path) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads((finished_run / "result.json").read_text("utf-8"))
    return whole


def test_the_folder_holds_what_the_contract_names_and_nothing_else(finished_run: Path) -> None:
    assert {path.name for path in finished_run.iterdir()} == {
        "recipe.yaml",
        "result.json",
        "events.jsonl",
        "report.html",
        "model",
        "predictions.parquet",
        "splits.parquet",
        "answers.parquet",
        "examples.parquet",
        "looks.npz",
    }
    assert (finished_run / "model" / "README.md").is_file()


def test_result_json_holds_to_its_schema(result: dict[str, Any]) -> None:
    check(result, RESULT)


def test_the_schema_checker_can_fail(result: dict[str, Any]) -> None:
    for broken in (
        {**result, "schema": 2},
        {**result, "peak_memory_mb": float("nan")},
        {**result, "best_step": "3"},
        {k: v for k, v in result.items() if k != "verdict"},
        {**result, "test": {"n": 3, "metrics": {}}},
    ):
        with pytest.raises(AssertionError):
            check(broken, RESULT)


def test_the_counts_add_up(result: dict[str, Any], finished_run: Path) -> None:
    data = result["data"]
    assert data["used"] == data["train"] + data["valid"] + data["test"] <= data["rows"] == 160
    splits = parquet.read_table(finished_run / "splits.parquet")
    sides = splits["split"].to_pylist()
    assert splits.column_names == ["file", "row", "split", "group", "note", "text_key"]
    for side in ("train", "valid", "test"):
        assert sides.count(side) == data[side] > 0
    assert sorted(splits["row"].to_pylist()) == list(range(160))
    assert result["test"]["n"] == data["test"]
    assert result["valid"]["n"] == data["valid"]


def test_the_predictions_are_the_test_rows_of_the_source(
    finished_run: Path, result: dict[str, Any], marked_rows: Any
) -> None:
    table = parquet.read_table(finished_run / "predictions.parquet").to_pylist()
    splits = parquet.read_table(finished_run / "splits.parquet").to_pylist()
    test = {line["row"] for line in splits if line["split"] == "test"}
    assert {line["row"] for line in table} == test
    source = marked_rows()
    for line in table:
        assert line["label"] == source[line["row"]][1]
        assert sum(line["probabilities"]) == pytest.approx(1)
        chosen = result["classes"].index(line["prediction"])
        assert line["probabilities"][chosen] == max(line["probabilities"])
        own = line["probabilities"][result["classes"].index(line["label"])]
        assert line["loss"] == pytest.approx(-math.log(own), rel=1e-5)


def test_the_metrics_are_those_of_the_predictions(
    finished_run: Path, result: dict[str, Any]
) -> None:
    table = parquet.read_table(finished_run / "predictions.parquet").to_pylist()
    right = [line["label"] == line["prediction"] for line in table]
    metrics = result["test"]["metrics"]
    assert metrics["accuracy"]["value"] == pytest.approx(np.mean(right))
    assert metrics["loss"]["value"] == pytest.approx(np.mean([line["loss"] for line in table]))


def test_events_are_in_order_and_whole(finished_run: Path, result: dict[str, Any]) -> None:
    text = (finished_run / "events.jsonl").read_text("utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["event"] for line in lines} <= {"snapshot", "verdict", "action", "note"}
    steps = [line["step"] for line in lines]
    assert steps == sorted(steps)
    looks = [line["step"] for line in lines if line["event"] == "snapshot"]
    assert looks[0] == 0
    assert looks[-1] == result["last_step"]
    assert result["best_step"] in looks
    opened = [line for line in lines if line.get("what") == "test rows opened"]
    assert [line["at"] for line in opened] == [result["test"]["opened_at"]]


def test_the_recipe_names_every_setting_with_absolute_paths(
    finished_run: Path, marked_csv: Path
) -> None:
    plain = yaml.safe_load((finished_run / "recipe.yaml").read_text("utf-8"))
    assert plain["data"]["path"] == str(marked_csv.resolve())
    assert set(plain) == {key.split(".")[0] for key in known_keys()}
    open_settings = [
        key
        for key in known_keys()
        if key.startswith("train.") and plain["train"][key.split(".")[1]] in (None, "auto")
    ]
    assert set(open_settings) <= {
        "train.max_steps",
        "train.max_minutes",
        "train.huber",
        "train.patience",
        "train.cache_frozen",
        "train.added",
    }
    assert read_recipe(finished_run / "recipe.yaml").train.batch_size is not None


def test_plain_transformers_give_the_probabilities_that_were_scored(
    finished_run: Path, marked_rows: Any
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(finished_run / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(finished_run / "model")
    table = parquet.read_table(finished_run / "predictions.parquet").to_pylist()
    texts = [marked_rows()[line["row"]][0] for line in table]
    with torch.inference_mode():
        logits = model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt"))
    chances = logits.logits.softmax(1).numpy()
    expected = np.array([line["probabilities"] for line in table])
    np.testing.assert_allclose(chances, expected, atol=1e-5)
    names = [model.config.id2label[i] for i in chances.argmax(1)]
    assert names == [line["prediction"] for line in table]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def plain_result(run: Path) -> dict[str, Any]:
    """Without clocks, and without the reasons: what was worked out is now given."""
    whole = json.loads((run / "result.json").read_text("utf-8"))
    whole["test"].pop("opened_at")
    # Of the model alone: other files, and the document itself, hold clocks.
    sealed = whole.pop("seal")["files"]
    whole["seal"] = {name: mark for name, mark in sealed.items() if name.startswith("model/")}
    dropped = ("timing", "created", "peak_memory_mb", "decisions")
    return {key: value for key, value in whole.items() if key not in dropped}


def test_the_recipe_repeats_the_run_from_another_folder(
    holdfast: Any, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = holdfast("train", finished_run / "recipe.yaml", "--out", "again", "--quiet")
    assert done.code == 0, done.err
    again = tmp_path / "again"
    for name in (
        "recipe.yaml",
        "predictions.parquet",
        "splits.parquet",
        "model/model.safetensors",
        "model/config.json",
    ):
        assert digest(again / name) == digest(finished_run / name), name
    assert plain_result(again) == plain_result(finished_run)


@pytest.mark.slow
def test_a_relative_path_is_found_again_from_elsewhere(
    holdfast: Any,
    sets: list[str],
    marked_rows: Any,
    write_csv: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Data, test file and a metric of one's own, all given relative to the folder."""
    write_csv(tmp_path / "rows.csv", marked_rows(80))
    write_csv(tmp_path / "held.csv", marked_rows(40, seed=5))
    (tmp_path / "mine.py").write_text(
        "def share(labels, predictions, probabilities):\n"
        "    return float((labels == predictions).mean())\nshare.higher_is_better = True\n"
    )
    done = holdfast(
        "train",
        "rows.csv",
        "--test",
        "held.csv",
        "--out",
        "one",
        "--quiet",
        *sets,
        "--set",
        "train.metric=mine.py:share",
    )
    assert done.code == 0, done.err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = holdfast("train", "../one/recipe.yaml", "--out", "two", "--quiet")
    assert done.code == 0, done.err
    two = tmp_path / "elsewhere" / "two"
    for name in ("recipe.yaml", "predictions.parquet", "splits.parquet", "model/model.safetensors"):
        assert digest(two / name) == digest(tmp_path / "one" / name), name
    again, first = plain_result(two), plain_result(tmp_path / "one")
    # As they were named: in the shell, then in the run's recipe.
    assert first["data"].pop("files") == ["rows.csv", "held.csv"]
    held = [str(tmp_path / "rows.csv"), str(tmp_path / "held.csv")]
    assert again["data"].pop("files") == held
    assert again == first
    assert "share" in plain_result(two)["test"]["metrics"]
    assert plain_result(two)["test"]["n"] == 40
