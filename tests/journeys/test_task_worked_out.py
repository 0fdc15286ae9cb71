"""With data alone the task is worked out, printed with the reason, and stands in the recipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast.core.errors import RecipeError
from holdfast.plan.task import resolve_task, resolve_task_from_rows
from holdfast.recipe import Recipe, override

ROWS = 60


def word(n: int) -> str:
    return "".join(chr(97 + n // 26**k % 26) for k in range(3))


def text(n: int, words: int = 8) -> str:
    return " ".join(word(n * 31 + k * 7) for k in range(words))


FILES: dict[str, Callable[[int], dict[str, Any]]] = {
    "classes": lambda n: {"text": text(n), "label": ("good", "bad")[n % 2]},
    "pairs": lambda n: {"dialogue": text(n, 12), "summary": text(n, 4)},
    "instructions": lambda n: {"instruction": text(n), "input": "", "output": text(n, 3)},
    "chats": lambda n: {
        "messages": [
            {"role": "user", "content": text(n)},
            {"role": "assistant", "content": text(n, 3)},
        ]
    },
    "plain": lambda n: {"text": text(n, 20)},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("rows")
    paths = {}
    for name, row in FILES.items():
        paths[name] = folder / f"{name}.jsonl"
        paths[name].write_text("".join(json.dumps(row(n)) + "\n" for n in range(ROWS)))
    paths["txt"] = folder / "story.txt"
    paths["txt"].write_text("\n\n".join(text(n, 20) for n in range(ROWS)))
    return paths


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders with a configuration alone: nothing else of a model says what it is for."""
    folder, configs = (
        tmp_path_factory.mktemp("models"),
        {
            "encoder": {"architectures": ["BertForMaskedLM"], "model_type": "bert"},
            "decoder": {"architectures": ["LlamaForCausalLM"], "model_type": "llama"},
            "pairs": {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
            "pictures": {"architectures": ["ResNetForImageClassification"], "model_type": "resnet"},
        },
    )
    for name, config in configs.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
    return {name: str(folder / name) for name in configs} | {"unknown": "nobody/has-this-model"}


TASKS = [
    ("classes", "encoder", "text-classification"),
    ("classes", "decoder", "text-classification"),
    ("classes", "pairs", "text-classification"),
    ("classes", "unknown", "text-classification"),
    ("pairs", "pairs", "seq2seq"),
    ("pairs", "decoder", "causal-lm"),
    ("pairs", "unknown", "seq2seq"),
    ("instructions", "decoder", "causal-lm"),
    ("instructions", "pairs", "seq2seq"),
    ("chats", "decoder", "causal-lm"),
    ("plain", "decoder", "causal-lm"),
    ("txt", "decoder", "causal-lm"),
    ("classes", "pictures", "image-classification"),
]


@pytest.mark.parametrize(("rows", "model", "task"), TASKS)
def test_rows_and_model_say_the_task(
    made: dict[str, Path], models: dict[str, str], rows: str, model: str, task: str
) -> None:
    recipe = override(Recipe(), [f"data.path={made[rows]}", f"model.name={models[model]}"])
    resolved, (why,) = resolve_task(recipe)
    assert (resolved.task, why.what, why.chosen) == (task, "task", task)
    assert len(why.because) > 20


@pytest.mark.parametrize("task", ["seq2seq", "text-classification"])
def test_a_task_that_is_said_wins(made: dict[str, Path], task: str) -> None:
    recipe = override(Recipe(), [f"data.path={made['plain']}", f"task={task}"])
    resolved, told = resolve_task(recipe)
    assert (resolved.task, told) == (task, ())
    if task != "causal-lm":
        assert resolved == recipe


@pytest.mark.parametrize("rows", ["instructions", "chats", "plain", "txt"])
def test_a_language_model_that_is_not_named_is_smollm2(made: dict[str, Path], rows: str) -> None:
    for stated in ([], ["task=causal-lm"], ["model.name=embedded"]):
        recipe = override(Recipe(), [f"data.path={made[rows]}", *stated])
        resolved, _ = resolve_task(recipe)
        assert (resolved.task, resolved.model.name) == ("causal-lm", "smollm2")
        # An audit reads no model.
        assert resolve_task_from_rows(recipe)[0].model.name == recipe.model.name


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ("pairs", "flan-t5"),
        ("instructions", "--model smollm2"),
        ("chats", "--model smollm2"),
        ("plain", "--model smollm2"),
        ("txt", "--model smollm2"),
    ],
)
def test_an_encoder_writes_nothing_and_the_error_names_models_that_do(
    made: dict[str, Path],
    models: dict[str, str],
    tmp_path: Path,
    holdfast: Any,
    rows: str,
    named: str,
) -> None:
    done = holdfast("train", made[rows], "--model", models["encoder"], "--quiet")
    assert done.code == 2, done.err
    assert named in done.err
    assert "--task text-classification" in done.err
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_in_a_folder_is_refused_alike(
    made: dict[str, Path], models: dict[str, str]
) -> None:
    recipe = override(Recipe(), [f"data.path={made['pairs']}", f"model.name={models['encoder']}"])
    with pytest.raises(RecipeError, match="cannot generate text"):
        resolve_task(recipe)


@pytest.mark.slow
def test_a_decoder_reads_a_source_and_its_target_as_prompt_and_answer(
    made: dict[str, Path], tiny_llama: Path, tmp_path: Path, holdfast: Any
) -> None:
    """By the command line: the task is printed with its reason, and the recipe repeats it."""
    sets = [
        part
        for setting in (
            "train.max_steps=2",
            "train.threads=1",
            "train.precision=float32",
            "train.batch_size=4",
            "generate.rows=0",
        )
        for part in ("--set", setting)
    ]
    done = holdfast(
        "train", made["pairs"], "--model", tiny_llama, *sets, "--out", "run", "--verbose"
    )
    assert done.code == 0, done.err
    told = " ".join(done.err.split())
    assert "causal-lm" in told
    assert "usual pair of names" in told
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert result["task"] == recipe["task"] == "causal-lm"
    assert (recipe["data"]["text"], recipe["data"]["label"]) == (["dialogue"], "summary")
    assert result["decisions"][0]["what"] == "task"
