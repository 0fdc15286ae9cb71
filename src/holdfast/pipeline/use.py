"""Using finished runs: score them on other rows, predict with one or the average of several."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.core.errors import RecipeError
from holdfast.core.records import Floats, Outputs
from holdfast.data.load import load_table
from holdfast.data.memory import table_from_texts
from holdfast.data.table import Table
from holdfast.evaluate.forward import answer
from holdfast.evaluate.score import score
from holdfast.models.saved import SavedClassifier, load_saved
from holdfast.pipeline.folder import MODEL, RECIPE, need_run
from holdfast.recipe import DataPart, read_recipe


def evaluate(run: Path, data: str) -> dict[str, Any]:
    """A ``test`` block for the labelled rows of ``data``, scored by the saved model of ``run``."""
    need_run(run)
    saved = load_saved(run / MODEL)
    part = read_recipe(run / RECIPE).data
    table = load_table(
        data, text=_text(part), label=part.label, group=part.group, template=part.template,
        encoding=part.encoding, classes=saved.classes,
    )  # fmt: skip
    return score(answer(saved, table), saved.classes).to_json()


def predict_lines(runs: Sequence[Path], data: str | Sequence[str]) -> list[str]:
    """One JSON object a row: ``row``, ``prediction`` and ``confidence``.

    ``data`` is a file as ``train`` reads them (its label column may be absent) or a list of texts.
    """
    saved = [_load(run) for run in runs]
    table = _rows(runs[0], data)
    classes, probabilities = average(saved, table)
    best = probabilities.argmax(axis=1)
    return [
        json.dumps({
            "row": int(row), "prediction": classes[int(k)],
            "confidence": round(float(probabilities[i, k]), 6),
        }, ensure_ascii=False)
        for i, (row, k) in enumerate(zip(table.column("row"), best, strict=True))
    ]  # fmt: skip


def average(saved: Sequence[SavedClassifier], table: Table) -> tuple[tuple[str, ...], Floats]:
    """The mean of the probabilities [n, classes] of several models.

    Raises ``RecipeError`` when their classes differ; their order may.
    """
    classes = saved[0].classes
    total: Floats = np.zeros((len(table), len(classes)))
    for one in saved:
        if set(one.classes) != set(classes):
            raise RecipeError(
                "holdfast predict", "averages only runs of the same classes",
                sorted(set(one.classes) ^ set(classes)), "Give runs that were trained alike.",
            )  # fmt: skip
        order = [one.classes.index(name) for name in classes]
        total = total + _unlabelled(answer(one, table)).probabilities[:, order]
    return classes, total / len(saved)


def _unlabelled(outputs: Outputs) -> Outputs:
    return replace(outputs, labels=np.full(len(outputs.rows), -1))


def _load(run: Path) -> SavedClassifier:
    need_run(run)
    return load_saved(run / MODEL)


def _rows(run: Path, data: str | Sequence[str]) -> Table:
    if not isinstance(data, str):
        return table_from_texts(data)
    part = read_recipe(run / RECIPE).data
    return load_table(
        data, text=_text(part), label=None, template=part.template, encoding=part.encoding,
        need_label=False,
    )  # fmt: skip


def _text(part: DataPart) -> tuple[str, ...] | None:
    return None if part.template else part.text
