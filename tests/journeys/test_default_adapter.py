"""A large language model has LoRA where the recipe leaves the adapter open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.chats import write_chats
from typer.testing import CliRunner

from holdfast.cli.main import app
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.pipeline.main import train
from holdfast.plan import adapters
from holdfast.recipe import Recipe, override, read_recipe

SETTINGS = [
    "task=causal-lm",
    "data.template=chatml",
    "train.threads=1",
    "train.precision=float32",
    "train.matmul=default",
    "train.max_steps=2",
    "generate.rows=0",
]


@pytest.fixture
def recipe(merging_llama: Path, tmp_path: Path) -> Recipe:
    chats = write_chats(tmp_path / "chats.jsonl")
    return override(Recipe(), [*SETTINGS, f"data.path={chats}", f"model.name={merging_llama}"])


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "LORA_PARAMETERS", 1000)


def chosen(result: dict[str, Any]) -> str | None:
    found = [one for one in result["decisions"] if one["what"] == "model.adapter.kind"]
    return found[0]["chosen"] if found else None


def test_a_small_model_trains_all_its_weights(recipe: Recipe, tmp_path: Path) -> None:
    result = train(recipe, tmp_path / "run")
    assert chosen(result) is None
    assert result["model_facts"]["trainable"] == result["model_facts"]["parameters"]


@pytest.mark.usefixtures("large")
def test_a_large_one_trains_lora_at_its_rate_and_its_recipe_says_so(
    recipe: Recipe, tmp_path: Path
) -> None:
    result = train(recipe, tmp_path / "run")
    assert chosen(result) == "lora"
    facts = result["model_facts"]
    assert facts["trainable"] < facts["parameters"]
    full = train(override(recipe, ["model.adapter.kind=none"]), tmp_path / "full")
    assert chosen(full) is None
    rates = [one["settings"]["train"]["learning_rate"] for one in (result, full)]
    assert rates[0] == pytest.approx(10 * rates[1])
    assert full["model_facts"]["trainable"] == full["model_facts"]["parameters"]
    # What is written repeats each, whatever a later default is.
    kinds = [
        read_recipe(tmp_path / name / "recipe.yaml").model.adapter.kind for name in ("run", "full")
    ]
    assert kinds == ["lora", "none"]


@pytest.mark.usefixtures("large")
def test_frozen_layers_are_a_choice_too(recipe: Recipe, tmp_path: Path) -> None:
    result = train(override(recipe, ["model.freeze=0.5"]), tmp_path / "run")
    assert chosen(result) is None
    assert (tmp_path / "run" / "model" / "config.json").exists()


@pytest.mark.usefixtures("large")
def test_without_peft_all_weights_are_trained_and_it_says_why(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    result = train(recipe, tmp_path / "run")
    (told,) = (one for one in result["decisions"] if one["what"] == "model.adapter.kind")
    assert told["chosen"] == "none"
    assert "pip install 'holdfast[lora]'" in told["because"]


@pytest.mark.usefixtures("large")
def test_a_learning_rate_for_all_weights_is_told_to_be_low_for_lora(
    recipe: Recipe, tmp_path: Path
) -> None:
    rated = override(recipe, ["train.learning_rate=2e-5"])
    warned = train(rated, tmp_path / "run")["data"]["findings"]
    (told,) = (one for one in warned if one["check"] == "unusual_setting")
    assert "for lora on a small decoder model" in told["because"]
    full = train(override(rated, ["model.adapter.kind=none"]), tmp_path / "full")
    assert not [one for one in full["data"]["findings"] if one["check"] == "unusual_setting"]


@pytest.mark.usefixtures("large")
def test_the_card_s_lines_give_the_text_of_predict(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(recipe, run)
    card = (run / "model" / "README.md").read_text("utf-8")
    assert "library_name: peft" in card
    assert "\n- lora\n" in card.partition("\n---\n")[0]
    assert "`holdfast export RUN --to merged`" in card
    lines = card.partition("```python\n")[2].partition("```")[0]
    capsys.readouterr()
    with quiet_transformers():
        exec(lines.replace("path/to/this/folder", str(run / "model")), {})
    printed = capsys.readouterr().out
    turns = json.dumps({"messages": [{"role": "user", "content": "A question?"}]})
    (tmp_path / "new.jsonl").write_text(turns + "\n")
    done = CliRunner().invoke(
        app, ["predict", str(run), str(tmp_path / "new.jsonl"), "--max-tokens", "100"]
    )
    (line,) = done.stdout.splitlines()
    assert printed.strip() == json.loads(line)["prediction"].strip()
