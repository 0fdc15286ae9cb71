"""``--model RUN/model`` where that holds an adapter: it is trained further, on its own model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.chats import write_chats

from holdfast.core.errors import ModelError, RecipeError
from holdfast.models.generators.causal import load_saved_causal
from holdfast.models.loading.card import purpose_of
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.source import find_model
from holdfast.pipeline.main import train
from holdfast.prepare.model import prepare
from holdfast.recipe import Recipe, override
from holdfast.tasks import task_definition

SETTINGS = [
    "task=causal-lm",
    "data.template=chatml",
    "train.threads=1",
    "train.precision=float32",
    "train.matmul=default",
    "generate.rows=0",
]
# One learning rate so high that an adapter is far from nothing.
FIRST = ["model.adapter.kind=lora", "model.adapter.rank=4", "train.learning_rate=0.05"]
STEPS = ["train.max_steps=3"]


@pytest.fixture(scope="module")
def first(merging_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder of a run with an adapter."""
    folder = tmp_path_factory.mktemp("first")
    data = [f"data.path={write_chats(folder / 'first.jsonl')}", f"model.name={merging_llama}"]
    train(override(Recipe(), [*SETTINGS, *FIRST, *STEPS, *data]), folder / "run")
    return folder / "run" / "model"


def recipe_of(folder: Path, tmp_path: Path, *more: str) -> Recipe:
    data = [f"data.path={write_chats(tmp_path / 'more.jsonl', 100)}", f"model.name={folder}"]
    return override(Recipe(), [*SETTINGS, *data, *more])


def logits(plain: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = plain(input_ids=torch.arange(40)[None]).logits
        return found


def start(recipe: Recipe) -> Any:
    rows = task_definition("causal-lm").read(recipe.data.path, recipe.data, None)
    return prepare(recipe, rows)


def test_a_run_begins_with_the_saved_adapter_and_its_settings(first: Path, tmp_path: Path) -> None:
    prepared = start(recipe_of(first, tmp_path))
    assert torch.equal(
        logits(prepared.loaded.network.plain), logits(load_saved_causal(first)[0].plain)
    )
    adapter = prepared.recipe.model.adapter
    assert (adapter.kind, adapter.rank, adapter.alpha) == ("lora", 4, 8.0)
    names = [n for n, p in prepared.loaded.network.named_parameters() if p.requires_grad]
    assert names
    assert all("lora_" in name for name in names)


def test_what_is_saved_is_one_adapter_for_the_first_model(
    first: Path, merging_llama: Path, tmp_path: Path
) -> None:
    from peft import AutoPeftModelForCausalLM
    from safetensors.torch import load_file

    result = train(recipe_of(first, tmp_path, *STEPS), tmp_path / "run")
    saved = tmp_path / "run" / "model"
    config = json.loads((saved / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == str(merging_llama.resolve())
    before, after = (load_file(one / "adapter_model.safetensors") for one in (first, saved))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    # One step from the first adapter is far nearer to it than to an adapter made anew.
    name = next(name for name in before if "lora_A" in name)
    assert (after[name] - before[name]).norm() < 0.5 * before[name].norm()
    with quiet_transformers():
        adapted: Any = AutoPeftModelForCausalLM.from_pretrained(saved, dtype=torch.float32)
    assert torch.allclose(logits(adapted), logits(load_saved_causal(saved)[0].plain), atol=1e-5)
    assert result["settings"]["model"]["name"] == str(first)


def test_an_adapter_of_peft_alone_is_trained_further(merging_llama: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with quiet_transformers():
        model: Any = AutoModelForCausalLM.from_pretrained(merging_llama, dtype=torch.float32)
        config = LoraConfig(
            task_type="CAUSAL_LM", r=2, lora_alpha=6, target_modules=["q_proj", "v_proj"]
        )
        made: Any = get_peft_model(model, config)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.1)
    made.save_pretrained(tmp_path / "peft")
    prepared = start(recipe_of(tmp_path / "peft", tmp_path))
    assert torch.allclose(logits(prepared.loaded.network.plain), logits(made.eval()), atol=1e-5)
    assert prepared.recipe.model.adapter.targets == ("q_proj", "v_proj")


def test_another_rank_is_refused(first: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"model\.adapter\.rank") as error:
        start(recipe_of(first, tmp_path, "model.adapter.kind=lora", "model.adapter.rank=8"))
    assert "--to merged" in str(error.value)


def damage_rank(folder: Path) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"r": 3}))


def damage_kind(folder: Path) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"peft_type": "LOHA"}))


def damage_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def changed_config(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes))

    return damage


def own_base(folder: Path) -> None:
    (folder / "holdfast.json").unlink()
    changed_config(base_model_name_or_path=str(folder))(folder)


def no_number(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    next(iter(weights.values()))[0] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_rank, "its weights are not those"),
        (damage_kind, "a kind that Holdfast does not train further"),
        (damage_weights, "adapter_model.safetensors"),
        (changed_config(init_lora_weights="pissa"), "a kind that Holdfast does not train further"),
        (changed_config(use_dora=True, use_rslora=True), "a kind that Holdfast does not train"),
        (changed_config(r=None), "has no r that is a number above 0"),
        (changed_config(lora_alpha="x"), "has no lora_alpha that is a number above 0"),
        (own_base, "names an adapter as its pretrained model"),
        (no_number, "holds a weight that is no finite number"),
    ],
)
def test_an_adapter_that_cannot_be_made_alike_is_refused(
    first: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(first, copy)
    damage(copy)
    with pytest.raises(ModelError, match=message):
        start(recipe_of(copy, tmp_path))


def test_an_adapter_has_the_purpose_of_its_model_and_no_files_for_other_tasks(first: Path) -> None:
    assert purpose_of(str(first)) == "decoder"
    with pytest.raises(ModelError, match="only causal-lm can train further"):
        find_model(str(first))
