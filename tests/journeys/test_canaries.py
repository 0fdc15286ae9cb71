"""``probes.canaries``: random texts that a run is given to learn by heart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

from holdfast.core.errors import RecipeError
from holdfast.core.run_files import read_result
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override


@pytest.mark.slow
def test_what_was_planted_often_is_given_away_and_stands_on_no_side(
    marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    settings = [f"data.path={marked_csv}", *quick, "train.epochs=8", "control.policy=off"]
    settings += ["train.keep=last", "train.learning_rate=3e-3", "probes.canaries=9"]
    train(override(Recipe(), settings), tmp_path / "run")
    result = read_result(tmp_path / "run")
    found = result["probes"]["memorization"]["canaries"]
    assert [one["repeats"] for one in found["planted"]] == [1, 4, 16] * 3
    means = {one["repeats"]: one["value"] for one in found["exposure"]}
    assert means[16] > means[1] + 1
    assert means[16] > 4
    assert result["data"]["added"] == {"canary": 63}
    assert result["data"]["used"] == sum(result["data"][s] for s in ("train", "valid", "test"))
    for name in ("splits.parquet", "predictions.parquet", "examples.parquet", "answers.parquet"):
        assert min(parquet.read_table(tmp_path / "run" / name)["row"].to_pylist()) >= 0
    texts = {one["text"] for one in found["planted"]}
    assert "planted random texts" in (tmp_path / "run" / "report.html").read_text("utf-8")
    assert len(texts) == 9


def test_a_language_model_learns_secret_numbers(tiny_llama: Path, tmp_path: Path) -> None:
    rows = [" ".join(f"w{(7 * i + j) % 40}" for j in range(12)) for i in range(40)]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), "utf-8")
    settings = [
        "task=causal-lm",
        f"data.path={source}",
        f"model.name={tiny_llama}",
        "train.epochs=3",
        "train.threads=1",
        "generate.rows=0",
        "probes.canaries=3",
    ]
    train(override(Recipe(), settings), tmp_path / "run")
    found = read_result(tmp_path / "run")["probes"]["memorization"]
    planted = found["canaries"]["planted"]
    assert [one["repeats"] for one in planted] == [1, 4, 16]
    assert all(np.isfinite(one["exposure"]) for one in planted)
    assert all(len(one["label"].split()) == 6 for one in planted)
    assert found["extraction"] is None


@pytest.mark.slow
def test_no_canaries_are_no_change(marked_csv: Path, quick: list[str], tmp_path: Path) -> None:
    made = []
    for name, more in (("none", []), ("zero", ["probes.canaries=0"])):
        settings = [f"data.path={marked_csv}", *quick, "train.epochs=1", *more]
        train(override(Recipe(), settings), tmp_path / name)
        made.append((tmp_path / name / "model" / "model.safetensors").read_bytes())
    assert made[0] == made[1]


def test_other_tasks_are_refused_by_name(tmp_path: Path, quick: list[str]) -> None:
    source = tmp_path / "numbers.csv"
    lines = [f"w{i % 20} w{i % 7},{i / 7:.3f}" for i in range(80)]
    source.write_text("text,label\n" + "\n".join(lines) + "\n", "utf-8")
    settings: list[Any] = [f"data.path={source}", "data.label_kind=number", *quick]
    with pytest.raises(RecipeError, match=r"probes.canaries[\s\S]*number"):
        train(override(Recipe(), [*settings, "probes.canaries=3"]), tmp_path / "run")
