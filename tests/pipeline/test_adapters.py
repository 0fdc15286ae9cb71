"""Whole runs with an adapter: the folder, predictions, kill and resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.predicted import predict_lines

from holdfast.analyses.evaluation import evaluate
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override

LORA = ("model.adapter.kind=lora", "model.adapter.rank=2", "methods.contrast=false")


def go(csv: Path, quick: list[str], run: Path, *settings: str, **more: Any) -> dict[str, Any]:
    recipe = override(Recipe(), [f"data.path={csv}", *quick, *LORA, *settings])
    return train(recipe, run, **more)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "dora", "ia3", "prompt"])
def test_a_run_leaves_a_peft_folder_that_gives_the_scored_probabilities(
    marked_csv: Path, quick: list[str], tmp_path: Path, kind: str
) -> None:
    settings = [f"model.adapter.kind={kind}"]
    if kind == "ia3":
        settings.append("model.adapter.rank=null")
    result = go(marked_csv, quick, tmp_path / "r", *settings)
    assert (tmp_path / "r" / "model" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "r" / "model" / "model.safetensors").exists()
    assert result["model_facts"]["trainable"] < result["model_facts"]["parameters"]
    assert result["settings"]["model"]["pooling"] == "own"
    again = evaluate(tmp_path / "r", str(marked_csv))
    assert again["n"] == 160
    (line,) = predict_lines([tmp_path / "r"], ["w1 good w2"])
    assert json.loads(line)["prediction"] in ("no", "yes")


@pytest.mark.slow
def test_the_recipe_of_a_run_repeats_it(marked_csv: Path, quick: list[str], tmp_path: Path) -> None:
    from holdfast.recipe import read_recipe

    first = go(marked_csv, quick, tmp_path / "a")
    second = train(read_recipe(tmp_path / "a" / "recipe.yaml"), tmp_path / "b")
    assert first["test"] == second["test"] | {"opened_at": first["test"]["opened_at"]}
    assert first["settings"]["model"]["adapter"] == second["settings"]["model"]["adapter"]


@pytest.mark.slow
def test_killed_and_resumed_it_is_bit_identical(
    marked_csv: Path, quick: list[str], tmp_path: Path, killed: type[BaseException]
) -> None:
    class Kill:
        name = "kill"

        def step_done(self, run: Any) -> None:
            if run.step == 7:
                raise killed

    whole = go(marked_csv, quick, tmp_path / "whole", checkpoint_every_s=0.0)
    with pytest.raises(killed):
        go(marked_csv, quick, tmp_path / "cut", checkpoint_every_s=0.0, listeners=(Kill(),))
    resumed = go(marked_csv, quick, tmp_path / "cut", resume=True)
    assert resumed["test"]["metrics"] == whole["test"]["metrics"]
    one, two = (
        (tmp_path / run / "model" / "adapter_model.safetensors").read_bytes()
        for run in ("whole", "cut")
    )
    assert one == two


@pytest.mark.slow
def test_merged_it_is_a_plain_model(marked_csv: Path, quick: list[str], tmp_path: Path) -> None:
    result = go(marked_csv, quick, tmp_path / "r", "model.adapter.merge=true")
    assert result["settings"]["model"]["pooling"] == "mean"
    names = {path.name for path in (tmp_path / "r" / "model").iterdir()}
    assert "model.safetensors" in names
    assert "adapter_config.json" not in names


def test_the_default_rate_is_that_of_an_adapter(
    marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    from holdfast.pipeline.preview import preview

    base = [f"data.path={marked_csv}", *quick, "train.learning_rate=null", "methods.contrast=false"]
    plain = preview(override(Recipe(), base))["phases"][-1]["learning_rate"]
    adapted = preview(override(Recipe(), [*base, *LORA]))["phases"][-1]["learning_rate"]
    assert adapted == pytest.approx(10 * plain)


def test_the_adapter_is_all_that_a_checkpoint_holds_of_the_model(
    marked_csv: Path, quick: list[str], tmp_path: Path, killed: type[BaseException]
) -> None:
    class Kill:
        name = "kill"

        def step_done(self, run: Any) -> None:
            if run.step == 5:
                raise killed

    with pytest.raises(killed):
        go(marked_csv, quick, tmp_path / "r", checkpoint_every_s=0.0, listeners=(Kill(),))
    newest = max((tmp_path / "r" / "checkpoints").glob("step-*.pt"))
    state = torch.load(newest, weights_only=True)
    assert all("lora_" in n or n.startswith(("head.", "pool.")) for n in state["now"]["weights"][1])
