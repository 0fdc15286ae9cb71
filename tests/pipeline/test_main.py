"""The main job as a function: what the recipe's limits bound, and several runs in one process."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.decisions import decisions_to
from holdfast.core.errors import RecipeError
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override


def looks(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    return [line for line in lines if line["event"] == "snapshot"]


def go(csv: Path, quick: list[str], run: Path, *settings: str) -> dict[str, Any]:
    return train(override(Recipe(), [f"data.path={csv}", *quick, *settings]), run)


@pytest.mark.slow
def test_both_precisions_in_one_process(marked_csv, quick, tmp_path: Path) -> None:
    for precision in ("bfloat16", "float32", "bfloat16"):
        result = go(
            marked_csv,
            quick,
            tmp_path / str(len(list(tmp_path.iterdir()))),
            f"train.precision={precision}",
            "train.max_steps=3",
        )
        assert result["model_facts"]["precision"] == precision
        assert math.isfinite(result["test"]["metrics"]["loss"]["value"])


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 2, 7])
def test_max_steps_bound_the_updates_of_all_phases(marked_csv, quick, tmp_path, limit) -> None:
    assert go(marked_csv, quick, tmp_path / "r", f"train.max_steps={limit}")["last_step"] == limit


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ["train.epochs=1"],
        ["train.epochs=2.5"],
        ["train.epochs=4", "methods.contrast.steps=500"],
        ["train.epochs=3", "methods.contrast=false"],
        ["train.epochs=3", "train.accumulate=3"],
    ],
)
def test_epochs_bound_the_passes_of_all_phases(marked_csv, quick, tmp_path, settings) -> None:
    result = go(marked_csv, quick, tmp_path / "r", *settings, "control.policy=off")
    seen = looks(tmp_path / "r")[-1]
    epochs = result["settings"]["train"]["epochs"]
    assert seen["examples_seen"] <= epochs * result["data"]["train"]
    assert seen["epoch"] >= 0.5 * epochs
    speed = result["timing"]["examples_per_s"]
    expected = seen["examples_seen"] / result["timing"]["train_s"]
    assert speed == pytest.approx(expected, rel=0.05)


def test_max_minutes_ends_a_run_with_everything_in_place(marked_csv, quick, tmp_path) -> None:
    result = go(marked_csv, quick, tmp_path / "r", "train.max_minutes=0.00001")
    assert result["last_step"] == 1
    assert "max_minutes" in result["stopped_because"]
    assert [action["action"] for action in result["actions"]] == ["Stop"]
    rows, timing = looks(tmp_path / "r")[-1]["examples_seen"], result["timing"]
    assert timing["examples_per_s"] == pytest.approx(rows / timing["train_s"], rel=0.05)
    assert (tmp_path / "r" / "report.html").is_file()


def test_a_metric_for_two_classes_is_refused_for_three(
    marked_rows, write_csv, quick, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "three.csv", marked_rows(150, ("a", "b", "c")))
    with pytest.raises(RecipeError, match="two classes, but there are 3"):
        go(path, quick, tmp_path / "r", "train.metric=roc_auc")
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_an_aimed_for_metric_chooses_the_best_state(marked_csv, quick, tmp_path: Path) -> None:
    result = go(
        marked_csv,
        quick,
        tmp_path / "r",
        "train.metric=f1_macro",
        "control.policy=off",
        "train.epochs=6",
        "train.learning_rate=3e-3",
    )
    values = {look["step"]: look["valid_metrics"]["f1_macro"] for look in looks(tmp_path / "r")}
    assert values[result["best_step"]] == max(values.values())


@pytest.mark.slow
def test_frozen_words_do_not_move_and_the_rest_does(marked_csv, quick, tmp_path, tiny_model):
    from safetensors.torch import load_file

    go(marked_csv, quick, tmp_path / "r", "train.keep=lowest", "train.metric=loss")
    before = load_file(tiny_model / "model.safetensors")
    after = load_file(tmp_path / "r" / "model" / "model.safetensors")
    words = "embeddings.word_embeddings.weight"
    moved = {
        name: not before[name].equal(after[f"bert.{name}"])
        for name in before
        if f"bert.{name}" in after
    }
    assert not moved.pop(words)
    assert any(moved.values())


@pytest.mark.slow
def test_what_was_decided_is_heard_and_written(marked_csv, quick, tmp_path: Path) -> None:
    told: list[Any] = []
    recipe = override(Recipe(), [f"data.path={marked_csv}", *quick])
    with decisions_to(told.append):
        result = train(recipe, tmp_path / "r")
    heard = {item.what for item in told if hasattr(item, "what")}
    written = {item["what"] for item in result["decisions"]}
    assert heard <= written
    assert {"text column", "split", "train.threads", "evaluation points"} <= heard
