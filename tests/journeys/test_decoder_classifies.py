"""A decoder (Llama) as text classifier: its last layer has no bias, its tokenizer no padding."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

QUICK = (
    "model.max_length=24",
    "train.max_steps=4",
    "train.learning_rate=1e-2",
    "train.threads=1",
    "train.precision=float32",
    "control.policy=stop",
)


def options(settings: tuple[str, ...]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # in PEFT
@pytest.mark.parametrize("adapter", [(), ("model.adapter.kind=lora",)], ids=["full", "lora"])
def test_a_decoder_is_trained_scored_against_its_probe_and_predicts_as_it_was_scored(
    tiny_llama: Path,
    marked_csv: Path,
    tmp_path: Path,
    holdfast: Callable[..., Any],
    adapter: tuple[str, ...],
) -> None:
    run = tmp_path / "run"
    start = ["train", marked_csv, "--model", tiny_llama, "--out", run]
    done = holdfast(*start, *options((*QUICK, *adapter)))
    assert done.code == 0, done.err
    result = json.loads((run / "result.json").read_text("utf-8"))
    (told,) = [one["because"] for one in result["decisions"] if one["what"] == "baseline"]
    assert "linear probe 0." in told
    # The rows of the file are read one after the other, in batches with padding.
    out = tmp_path / "answers.csv"
    assert holdfast("predict", run, marked_csv, "--out", out, "--quiet").code == 0
    with out.open(encoding="utf-8") as file:
        answers = [row["prediction"] for row in csv.DictReader(file)]
    import pyarrow.parquet as pq

    scored = pq.read_table(run / "predictions.parquet").to_pydict()
    assert [answers[row] for row in scored["row"]] == scored["prediction"]


def test_class_frequencies_that_no_bias_can_hold_are_refused_before_any_step(
    tiny_llama: Path, marked_csv: Path, tmp_path: Path, holdfast: Callable[..., Any]
) -> None:
    start = ["train", marked_csv, "--model", tiny_llama, "--out", tmp_path / "run"]
    done = holdfast(*start, *options((*QUICK, "train.metric=f1_macro")))
    assert done.code == 2
    assert "methods.balance.target" in done.err
    assert "methods.balance=false" in done.err
    kept = (*QUICK, "train.metric=f1_macro", "methods.balance=false")
    assert holdfast(*start, *options(kept)).code == 0
