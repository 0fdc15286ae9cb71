"""A run that starts from the saved model of another: no row that scores it was seen before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

KEPT = ("train.epochs=1", "train.precision=float32", "train.threads=1", "methods.contrast=false")


def from_model(model: Path, *settings: str) -> list[str]:
    chosen = [part for one in (*KEPT, *settings) for part in ("--set", one)]
    return ["--model", str(model), "--quiet", *chosen]


def findings(run: Path) -> list[dict[str, Any]]:
    result = json.loads((run / "result.json").read_text("utf-8"))
    return [one for one in result["data"]["findings"] if one["check"] == "start_knows"]


@pytest.mark.parametrize(
    ("command", "settings", "rows"),
    [
        ("train", ["seed=1"], "test rows"),
        ("train", ["data.split.test=0"], "scored rows"),
        ("cv", [], "scored rows"),
    ],
)
def test_a_model_that_saw_the_scored_rows_is_refused(
    holdfast: Any,
    finished_run: Path,
    marked_csv: Path,
    tmp_path: Path,
    command: str,
    settings: list[str],
    rows: str,
) -> None:
    asked = from_model(finished_run / "model", *settings)
    done = holdfast(command, marked_csv, "--out", tmp_path / "no", *asked)
    assert done.code == 2, done.out
    said = " ".join(done.err.split())
    assert "was trained or validated on " in said
    assert f"{rows} of the new run" in said
    assert not (tmp_path / "no" / "result.json").exists()


def test_a_model_of_the_same_division_is_trained_further(
    holdfast: Any, finished_run: Path, marked_csv: Path, tmp_path: Path
) -> None:
    done = holdfast(
        "train", marked_csv, "--out", tmp_path / "on", *from_model(finished_run / "model")
    )
    assert done.code == 0, done.err
    assert findings(tmp_path / "on") == []


def test_a_model_without_its_run_is_named_in_a_finding(
    holdfast: Any, finished_run: Path, marked_csv: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run / "model", tmp_path / "bare")
    done = holdfast("train", marked_csv, "--out", tmp_path / "on", *from_model(tmp_path / "bare"))
    assert done.code == 0, done.err
    (finding,) = findings(tmp_path / "on")
    assert finding["severity"] == "warn"
    assert "fine-tuned by Holdfast" in finding["because"]
