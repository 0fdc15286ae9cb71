"""Using finished runs: score them on other rows, predict with one or several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.core.errors import RecipeError
from holdfast.pipeline.folder import RECIPE, need_run
from holdfast.pipeline.kinds import kind_of
from holdfast.recipe import read_recipe
from holdfast.training.machine import flushed_subnormals


def evaluate(run: Path, data: str) -> dict[str, Any]:
    """A ``test`` block for the labelled rows of ``data``, scored by the saved model of ``run``."""
    need_run(run)
    with flushed_subnormals():
        return kind_of(read_recipe(run / RECIPE).task).evaluate(run, data)


def predict_lines(runs: Sequence[Path], data: str | Sequence[str]) -> list[str]:
    """One JSON object a row, by one run or the average of several of the same task.

    ``data`` is a file as ``train`` reads them (its label column may be absent) or a list of texts.
    """
    for run in runs:
        need_run(run)
    tasks = sorted({str(read_recipe(run / RECIPE).task) for run in runs})
    if len(tasks) > 1:
        raise RecipeError(
            "holdfast predict", "averages only runs of the same task", tasks,
            "Give runs that were trained alike.",
        )  # fmt: skip
    with flushed_subnormals():
        return kind_of(tasks[0]).predict(runs, data)
