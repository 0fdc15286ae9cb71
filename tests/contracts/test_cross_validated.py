"""Cross-validation of every task: each row answered once by a model to which it was unknown, a
model of all rows, and commands that live without test rows or say why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

from holdfast.analyses.errors.analysis import errors
from holdfast.analyses.evaluation import evaluation_block
from holdfast.analyses.threshold.analysis import ThresholdRequest, set_threshold
from holdfast.contract.inference import InferenceOptions
from holdfast.core.errors import HoldfastError
from holdfast.pipeline.main import train
from holdfast.runs.finished_run import FinishedRun
from holdfast.search.folds.cross_validation import CrossValidation
from holdfast.terminal.results.errors import errors_text

QUICK = {"epochs": 1, "batch_size": 4, "threads": 1, "precision": "float32", "matmul": "default"}
TASKS = (
    "classes",
    "several labels",
    "numbers",
    "tags",
    "seq2seq",
    "chats",
    "plain texts, adapter",
    "pictures, batch norms",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tags", "chats", "plain texts, adapter"])
def test_other_tasks_have_a_learning_curve_of_their_loss(
    name: str, make_sample: Callable[[str], Any], tmp_path: Path
) -> None:
    sample = make_sample(name)
    recipe = sample.recipe.with_changes(train=QUICK, generate={"rows": 2, "max_new_tokens": 4})
    result = train(recipe, tmp_path / "run", procedure=CrossValidation(2, learning_curve=True))
    curve, loss = result["cv"]["learning_curve"], result["cv"]["metrics"]["loss"]["value"]
    assert list(curve["metrics"]) == ["loss"]
    scores = curve["metrics"]["loss"]["scores"]
    assert scores[-1]["value"] == pytest.approx(loss)
    assert len(curve["rows"]) == len(scores) == 3


@pytest.mark.slow
def test_a_part_that_cannot_be_trained_ends_no_cross_validation(
    make_sample: Callable[[str], Any], tmp_path: Path
) -> None:
    sample = make_sample("numbers")
    recipe = sample.recipe.with_changes(train=QUICK)
    result = train(recipe, tmp_path / "run", procedure=CrossValidation(2, learning_curve=True))
    assert "nothing to learn" in result["cv"]["learning_curve"]["why"]
    assert result["cv"]["metrics"]["loss"]["value"] is not None
    assert "No learning curve" in (tmp_path / "run" / "report.html").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_cross_validated(
    name: str, make_sample: Callable[[str], Any], tmp_path: Path
) -> None:
    sample, run = make_sample(name), tmp_path / "run"
    recipe = sample.recipe.with_changes(train=QUICK, generate={"rows": 2, "max_new_tokens": 4})
    result = train(recipe, run, procedure=CrossValidation(2))
    cv = result["cv"]
    assert (cv["folds"], cv["repeats"], len(cv["per_fold"])) == (2, 1, 2)
    main = cv["metrics"][cv["metric"]]
    assert main["value"] is not None
    assert main["how"]
    if main["low"] is not None:
        assert main["low"] <= main["value"] <= main["high"]

    table = parquet.read_table(run / "folds.parquet")
    rows = table["row"].to_numpy()
    assert len(np.unique(rows)) == len(rows)
    # The samples have a row or two of which nothing can be read.
    assert len(sample.table) - 2 <= len(rows) <= len(sample.table)
    assert {"row", "fold", "repeat", "label", "prediction", "loss"} <= set(table.column_names)
    if name == "numbers":
        given = sample.table.take(sample.table.positions_of(rows)).column("value")
        said = [float(one) for one in table["label"].to_pylist()]
        assert said == pytest.approx(given.tolist(), rel=1e-9)

    assert result["test"]["n"] == 0
    assert result["test"]["why"]
    assert result["valid"]["out_of_fold"]
    assert result["data"]["train"] == len(sample.table)
    assert result["train_probe"]["n"] > 0
    splits = parquet.read_table(run / "splits.parquet")["split"].to_pylist()
    assert set(splits) == {"train"}
    assert parquet.read_table(run / "predictions.parquet").num_rows == 0

    page = (run / "report.html").read_text("utf-8")
    assert "Cross-validation" in page

    told = FinishedRun(run).predictions_of("valid")
    assert len(told.losses) == len(rows)
    assert errors(run)["slices"]["why"]
    assert errors_text(errors(run), 80)
    block = scored_block_of(run, str(sample.recipe.data.path))
    assert block["n"] > 0
    if name in ("numbers", "seq2seq", "chats", "plain texts, adapter"):
        with pytest.raises(HoldfastError, match="correct or wrong"):
            set_threshold(run, ThresholdRequest(coverage=0.5))
    else:
        assert set_threshold(run, ThresholdRequest(coverage=0.5))["rule"] is not None


def scored_block_of(run: Path, data: str) -> dict[str, Any]:
    from holdfast.runs.predictor import Predictor

    return evaluation_block(Predictor.load(run), data, InferenceOptions())
