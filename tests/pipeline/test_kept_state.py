"""Which state a run keeps, and whether it must first prove itself against its linear probe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.pipeline.compose import make_ready
from holdfast.pipeline.keep import must_prove
from holdfast.pipeline.main import train
from holdfast.pipeline.prepared import prepare_divided
from holdfast.pipeline.rows import load_and_divide
from holdfast.recipe import Recipe, override

FAST = ["train.precision=float32", "train.threads=1", "train.matmul=default"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], False),
        (["train.epochs=3"], False),
        (["train.max_steps=5"], False),
        (["train.epochs=100", "methods.contrast=false"], True),
        (["train.learning_rate=1e-3"], True),
        (["train.learning_rate=1e-3", "methods.probe_first=false"], False),
        (["model.adapter.kind=ia3"], True),
    ],
)
def test_a_plan_that_learns_more_than_the_measured_recipe_must_prove_its_gain(
    marked_csv: Path, tiny_model: Path, settings: list[str], expected: bool
) -> None:
    recipe = override(
        Recipe(), [f"data.path={marked_csv}", f"model.name={tiny_model}", *FAST, *settings]
    )
    ready = make_ready(*prepare_divided(recipe, load_and_divide(recipe).splits))
    assert must_prove(ready, ready.kind.listeners(ready)) is expected


@pytest.fixture(scope="module")
def unlearnable(tmp_path_factory: pytest.TempPathFactory, marked_rows: Any, write_csv: Any) -> Path:
    """60 rows whose labels have nothing to do with their texts."""
    rng = np.random.default_rng(0)
    rows = marked_rows(60)
    labels = rng.permutation([label for _, label in rows])
    path: Path = write_csv(
        tmp_path_factory.mktemp("data") / "noise.csv",
        [(text, label) for (text, _), label in zip(rows, labels, strict=True)],
    )
    return path


def fitted_too_long(csv: Path, model: Path, run: Path, *settings: str) -> dict[str, Any]:
    long = [
        "methods.contrast=false",
        "train.epochs=20",
        "train.learning_rate=3e-3",
        "train.evaluations=1",
        "control.policy=off",
        f"model.name={model}",
    ]
    return train(override(Recipe(), [f"data.path={csv}", *long, *FAST, *settings]), run)


def test_where_few_rows_cannot_tell_the_probe_is_kept_and_the_run_says_so(
    unlearnable: Path, tiny_model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "r"
    result = fitted_too_long(unlearnable, tiny_model, run)
    assert result["best_step"] == 0
    told = next(d for d in result["decisions"] if d["what"] == "kept state")
    assert told["chosen"].endswith("the base model with a linear probe as its last layer")
    assert "Fine-tuning was discarded" in (run / "report.html").read_text("utf-8")
    assert "Fine-tuning was discarded" in (run / "model" / "README.md").read_text("utf-8")
    (named,) = [d for d in result["decisions"] if d["what"].startswith("linear probe")]
    assert named["what"] == "linear probe (baseline)"
    assert named["chosen"] == "baseline, and the last layer at step 0"
    assert "9 validation rows cannot tell" in told["because"]
    probe = next(b for b in result["baseline"]["all"] if b["what"] == "linear probe")
    assert result["test"]["metrics"]["accuracy"]["value"] == pytest.approx(
        probe["test"]["metrics"]["accuracy"]["value"]
    )
    events = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    notes = [event for event in events if event.get("what") == "kept state"]
    assert [note["because"] for note in notes] == [told["because"]]


def test_keep_last_keeps_what_training_ended_with(
    unlearnable: Path, tiny_model: Path, tmp_path: Path
) -> None:
    result = fitted_too_long(unlearnable, tiny_model, tmp_path / "r", "train.keep=last")
    assert result["best_step"] == result["last_step"] > 0
    assert result["settings"]["train"]["keep"] == "last"
