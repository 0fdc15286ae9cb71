"""Every kind of task is updated by its own rows, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

from holdfast.core.errors import RunError
from holdfast.pipeline.main import train
from holdfast.plugins.update.merge import join_feedback
from holdfast.plugins.update.options import UpdateOptions, run_update
from holdfast.recipe import Recipe, override

WORDS = [f"w{i}" for i in range(40)]
Make = Callable[[np.random.Generator, int], dict[str, Any]]


def _text(rng: np.random.Generator, most: int = 14) -> str:
    return " ".join(WORDS[i] for i in rng.integers(0, 40, rng.integers(3, most)))


def _tags(rng: np.random.Generator, i: int) -> dict[str, Any]:
    words = _text(rng).split()
    return {"tokens": words, "tags": rng.choice(["O", "B-X", "B-Y"], len(words)).tolist()}


def _several(rng: np.random.Generator, i: int) -> dict[str, Any]:
    return {"text": _text(rng), "label": [["a"], ["a", "b"], [], ["b"]][i % 4]}


def _number(rng: np.random.Generator, i: int) -> dict[str, Any]:
    return {"text": _text(rng), "label": round(float(rng.normal()), 3)}


def _grouped(rng: np.random.Generator, i: int) -> dict[str, Any]:
    row = {"one": _text(rng), "two": _text(rng), "kind": "ab"[i % 2]}
    return {**row, "author": f"author {i % 9}"}


def _turns(rng: np.random.Generator, i: int) -> dict[str, Any]:
    return {"prompt": _text(rng, 5), "completion": _text(rng, 4)}


def _write(path: Path, make: Make, n: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    path.write_text("".join(json.dumps(make(rng, i)) + "\n" for i in range(n)), "utf-8")
    return path


KINDS: dict[str, tuple[str, str, Make, list[str], str]] = {
    "several": ("text-classification", "tiny_model", _several, [], "f1_micro"),
    "number": ("text-classification", "tiny_model", _number, ["data.label_kind=number"], "mae"),
    "groups": (
        "text-classification",
        "tiny_model",
        _grouped,
        ["data.text=[one, two]", "data.label=kind", "data.group=author"],
        "accuracy",
    ),
    "tags": ("token-classification", "tiny_model", _tags, [], "entity_f1"),
    "turns": ("causal-lm", "tiny_llama", _turns, ["data.template=chatml"], "rouge_l"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_an_update_of_each_kind(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    task, model, make, more, metric = KINDS[name]
    source = _write(tmp_path / "rows.jsonl", make, 90, 0)
    settings = [f"task={task}", f"data.path={source}", "train.epochs=1", "train.threads=1"]
    settings.append(f"model.name={request.getfixturevalue(model)}")
    train(override(Recipe(), [*settings, *more]), tmp_path / "run")
    feedback = _write(tmp_path / "feedback.jsonl", make, 40, 1)
    start = "warm" if name in ("tags", "turns") else "anew"
    asking = UpdateOptions(tmp_path / "run", str(feedback), start=start)
    result, out = run_update(asking, tmp_path / "new", quiet=True)
    block = result["update"]
    assert block["gate"]["new"]["metric"] == metric
    assert block["gate"]["old"]["n"] == result["valid"]["n"]
    assert block["feedback"]["used"] + block["feedback"]["held"] == 40
    assert block["test"]["n"] == result["test"]["n"] > 0
    # Forty rows decide nothing, and that is said.
    assert block["gate"]["decision"] in ("undecided", "kept_aside")
    # The joined rows are those of the two files, cell by cell.
    joined = parquet.read_table(out / "data.parquet").to_pylist()
    given = [json.loads(one) for one in feedback.read_text("utf-8").splitlines()]
    learned = joined[block["feedback"]["replayed"]["n"] :]
    assert len(learned) == block["feedback"]["used"]
    wanted = [{key: _plain(value) for key, value in one.items()} for one in given]
    assert all(one in wanted for one in learned)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize(
    ("name", "said"), [("pictures", "image-classification"), ("texts", "plain")]
)
def test_what_cannot_be_updated_is_refused_by_name(
    name: str, said: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name == "pictures":
        from PIL import Image

        rng = np.random.default_rng(0)
        for i in range(40):
            place = tmp_path / "rows" / "ab"[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 255, (12, 10, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{i}.png")
        more = [f"data.path={tmp_path / 'rows'}", f"model.name={_vit(tmp_path)}"]
    else:
        llama = request.getfixturevalue("tiny_llama")
        source = _write(tmp_path / "rows.jsonl", lambda rng, i: {"text": _text(rng)}, 60, 0)
        more = [f"data.path={source}", f"model.name={llama}", "task=causal-lm"]
    train(override(Recipe(), [*more, "train.epochs=1", "train.threads=1"]), tmp_path / "run")
    with pytest.raises(RunError, match=said):
        join_feedback(tmp_path / "run", "feedback.csv")


def _vit(folder: Path) -> Path:
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=8,
        patch_size=4,
    )
    ViTForImageClassification(config).save_pretrained(folder / "vit")
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(folder / "vit")
    return folder / "vit"
