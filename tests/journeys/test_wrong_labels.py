"""Wrong labels, all the way: what a run says of a file of which some labels are not the truth."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.core.records import to_json
from holdfast.core.run_facts import LabelNoise
from holdfast.plugins.logs.holdfast_run import run_verdict


def run(data: Path, folder: Path, share: float) -> dict[str, Any]:
    """The ``result.json`` of a short run on 360 questions of TREC, of whose labels ``share`` are
    exchanged for another."""
    from holdfast.pipeline.main import train
    from holdfast.recipe import Recipe, override

    path, rng = folder / "questions.csv", np.random.default_rng(0)
    with (data / "trec" / "train.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    names = sorted({label for _, label in rows} - {"ABBR"})
    rows = [row for row in rows if row[1] in names]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in rng.permutation(len(rows))[:360]:
            text, label = rows[i]
            if rng.random() < share:
                label = rng.choice([name for name in names if name != label])
            writer.writerow([text, label])
    settings = [
        f"data.path={path}",
        "train.epochs=1",
        "train.precision=float32",
        "train.threads=1",
        "train.matmul=default",
    ]
    train(override(Recipe(), settings), folder / "run")
    result: dict[str, Any] = json.loads((folder / "run" / "result.json").read_text("utf-8"))
    return result


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.25, pytest.param(0.0, marks=pytest.mark.slow)])
def test_a_file_with_wrong_labels_is_called_so_and_the_same_with_right_ones_is_not(
    tmp_path: Path, shared_data: Path, share: float
) -> None:
    verdict = run(shared_data, tmp_path, share)["verdict"]
    assert (verdict["label"] == "noisy_labels") == (share > 0), verdict["because"]
    if share:
        rate = next(e for e in verdict["evidence"] if e["name"] == "share_of_wrong_labels")
        assert 0.02 < rate["low"] < share < rate["high"]
        assert verdict["cause"] == "wrong labels"
        assert "a linear probe" in verdict["because"]
    again = run_verdict(tmp_path / "run")
    assert again is not None
    assert to_json(again.verdict) == verdict


def test_a_checkpoint_keeps_what_the_probe_says() -> None:
    from holdfast.methods.closed_form import HeadRefit
    from holdfast.models.probes.head_fit import ProbeCurve

    noise = LabelNoise(0.1, 0.05, 0.15, 0.8, 0.5, 400)
    kept, again = HeadRefit(lambda x, y: None, True), HeadRefit(lambda x, y: None, True)  # type: ignore[arg-type, return-value]
    kept.curve = ProbeCurve(np.ones(3), ((20, 0.5),), (1, 3), noise)
    state = kept.state_dict()
    again.load_state_dict(state)
    assert again.curve is not None
    assert again.curve.labels == noise
    assert again.curve.twins == (1, 3)
