"""Whole runs of texts with several labels, and with a number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.kills import KillAt
from tests.predicted import predict_lines

from holdfast.analyses.evaluation import evaluate
from holdfast.core.errors import RecipeError
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override, read_recipe

KINDS = ("several", "number")
WORDS = [f"w{i}" for i in range(40)]
MARKS = ["bad", "good", "odd"]


def source(folder: Path, kind: str, n: int = 160) -> Path:
    """Texts whose marks are their labels, or what their number is made of."""
    rng = np.random.default_rng(0)
    path = folder / f"{kind}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for _ in range(n):
            marks = [mark for mark in MARKS if rng.random() < 0.4]
            words = [*(WORDS[i] for i in rng.integers(0, 40, 8)), *marks]
            rng.shuffle(words)
            number = round(1000 + 50 * ("good" in marks) - 20 * ("bad" in marks) + rng.normal(), 2)
            label = marks if kind == "several" else number
            file.write(json.dumps({"text": " ".join(words), "label": label}) + "\n")
    return path


@pytest.fixture(scope="session")
def settings(quick: list[str]) -> list[str]:
    kept = [s for s in quick if not s.startswith(("methods.contrast", "train.learning_rate"))]
    return [*kept, "train.learning_rate=3e-4", "control.policy=off"]


@pytest.fixture(scope="session", params=KINDS)
def run(
    request: Any, tmp_path_factory: pytest.TempPathFactory, settings: list[str]
) -> tuple[str, Path, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    data = source(folder, request.param)
    train(override(Recipe(), [f"data.path={data}", *settings]), folder / "run")
    return request.param, data, folder / "run"


def result_of(run: Path) -> Any:
    return json.loads((run / "result.json").read_text("utf-8"))


def test_a_run_scores_the_problem_beside_its_baselines(run: tuple[str, Path, Path]) -> None:
    kind, _, folder = run
    result = result_of(folder)
    main, problem = (
        ("f1_micro", "multi_label_classification") if kind == "several" else ("mae", "regression")
    )
    assert result["task"] == "text-classification"
    assert result["problem"] == problem
    assert result["classes"] == (sorted(MARKS) if kind == "several" else None)
    for block in ("test", "valid", "train_probe"):
        assert result[block]["metrics"][main]["low"] is not None
    assert len(result["baseline"]["all"]) == 2
    assert result["baseline"]["comparison"]["p_value"] is not None
    page = (folder / "report.html").read_text("utf-8")
    assert '<section id="confusion"' not in page
    assert '<section id="calibration"' not in page
    assert ("Metrics by class" in page) == (kind == "several")
    card = (folder / "model" / "README.md").read_text("utf-8")
    assert ("which labels apply" if kind == "several" else "Predict a number") in card


def test_the_plain_model_gives_the_scored_answers(run: tuple[str, Path, Path]) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    kind, data, folder = run
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert model.config.problem_type == result_of(folder)["problem"]
    lines = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    table = pq.read_table(folder / "predictions.parquet").to_pylist()
    texts = [lines[line["row"]]["text"] for line in table]
    with torch.inference_mode():
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        batch.pop("token_type_ids", None)
        logits = model(**batch).logits
    if kind == "number":
        given = [lines[line["row"]]["label"] for line in table]
        answers = [float(line["prediction"]) for line in table]
        assert [float(line["label"]) for line in table] == given
        assert answers == pytest.approx(logits[:, 0].tolist(), rel=1e-4)
        mae = result_of(folder)["test"]["metrics"]["mae"]["value"]
        assert np.abs(np.array(answers) - given).mean() == pytest.approx(mae, rel=1e-3)
        return
    chances = torch.sigmoid(logits)
    assert np.allclose([line["probabilities"] for line in table], chances, atol=1e-4)
    names = [model.config.id2label[i] for i in range(3)]
    for line, held in zip(table, chances > 0.5, strict=True):
        assert line["prediction"] == [n for n, one in zip(names, held, strict=True) if one]
        assert line["label"] == sorted(lines[line["row"]]["label"])


def test_copies_of_a_text_stay_on_one_side(tmp_path: Path, settings: list[str]) -> None:
    from holdfast.prepare.rows import load_and_divide

    for kind in KINDS:
        data = source(tmp_path, kind, 90)
        data.write_text(data.read_text("utf-8") * 2, encoding="utf-8")
        splits = load_and_divide(override(Recipe(), [f"data.path={data}"])).splits
        sides = splits.records["split"].to_pylist()
        assert sides[:90] == sides[90:]
        assert {"train", "valid", "test"} == set(sides)


@pytest.mark.slow
def test_a_run_is_used_and_repeated(run: tuple[str, Path, Path], tmp_path: Path) -> None:
    kind, data, folder = run
    block = evaluate(folder, str(data))
    assert block["n"] == 160
    told = [json.loads(line) for line in predict_lines([folder, folder], ["good w1", "bad w2"])]
    assert [line["row"] for line in told] == [0, 1]
    if kind == "several":
        assert all(isinstance(line["prediction"], list) for line in told)
        assert all(0.5 <= line["confidence"] <= 1 for line in told)
    else:
        assert told[0]["prediction"] == pytest.approx(1000, abs=200)
        assert told[0]["confidence"] is None
    again = train(read_recipe(folder / "recipe.yaml"), tmp_path / "again")
    assert again["test"]["metrics"] == result_of(folder)["test"]["metrics"]


@pytest.mark.slow
def test_a_killed_run_ends_as_it_would_have(
    run: tuple[str, Path, Path], tmp_path: Path, settings: list[str], killed: Any
) -> None:
    recipe = override(Recipe(), [f"data.path={run[1]}", *settings])
    with pytest.raises(killed):
        train(
            recipe,
            tmp_path / "run",
            listeners=(KillAt("step_done", 8, killed),),
            checkpoint_every_s=0.0,
        )
    result = train(recipe, tmp_path / "run", resume=True)
    assert result["test"]["metrics"] == result_of(run[2])["test"]["metrics"]
    for name in ("model/model.safetensors", "predictions.parquet"):
        assert (tmp_path / "run" / name).read_bytes() == (run[2] / name).read_bytes()


@pytest.mark.parametrize(
    ("kind", "setting", "match"),
    [
        ("several", "train.metric=mae", "is not available"),
        ("number", "train.metric=accuracy", "is not available"),
        ("number", "train.label_smoothing=0.1", "is not available"),
        ("several", "methods.contrast.steps=5", "does not apply"),
        ("several", "train.huber=1", "is not available"),
    ],
)
def test_settings_of_another_problem_are_refused(
    tmp_path: Path, settings: list[str], kind: str, setting: str, match: str
) -> None:
    data = source(tmp_path, kind)
    with pytest.raises(RecipeError, match=match):
        train(override(Recipe(), [f"data.path={data}", *settings, setting]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_aimed_for_metric_and_huber_are_taken(tmp_path: Path, settings: list[str]) -> None:
    data = source(tmp_path, "number")
    more = ["train.metric=mae", "train.huber=1", "train.keep=lowest"]
    result = train(override(Recipe(), [f"data.path={data}", *settings, *more]), tmp_path / "run")
    events = (tmp_path / "run" / "events.jsonl").read_text("utf-8").splitlines()
    looks = [look for look in map(json.loads, events) if look["event"] == "snapshot"]
    values = {look["step"]: look["valid_metrics"]["mae"] for look in looks}
    assert values[result["best_step"]] == min(values.values())


@pytest.mark.slow
def test_a_test_file_and_an_adapter_are_taken(tmp_path: Path, settings: list[str]) -> None:
    pytest.importorskip("peft")
    for kind in KINDS:
        data, folder = source(tmp_path, kind), tmp_path / "given"
        folder.mkdir(exist_ok=True)
        lines = data.read_text("utf-8").splitlines()
        (folder / "test.jsonl").write_text("\n".join(lines[:40]) + "\n", encoding="utf-8")
        more = [
            f"data.test={folder / 'test.jsonl'}",
            "model.adapter.kind=lora",
            "train.max_steps=3",
        ]
        result = train(override(Recipe(), [f"data.path={data}", *settings, *more]), folder / kind)
        assert result["test"]["n"] == 40
        assert result["division"]["dropped"] == 40
        assert (folder / kind / "model" / "adapter_config.json").is_file()
