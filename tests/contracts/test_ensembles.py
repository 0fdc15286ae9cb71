"""Every kind of answer can be averaged, stacked and put into one model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.analyses.ensemble import ensemble_join
from holdfast.pipeline.main import train
from holdfast.recipe import override
from holdfast.runs.finished_run import shared_rows
from holdfast.runs.predictor import Predictor

QUICK = ["train.precision=float32", "train.threads=1", "train.matmul=default", "train.max_steps=2"]
# The other kinds have journeys of their own.
KINDS = ("several labels", "numbers", "tags", "chats", "pictures")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_runs_of_one_division_answer_as_one(
    kind: str, make_sample: Callable[[str], Any], tmp_path: Path
) -> None:
    recipe, runs = make_sample(kind).recipe, []
    for number, rate in enumerate((1e-4, 1e-3)):
        more = [f"train.learning_rate={rate}", "generate.rows=0", "train.epochs=2"]
        train(override(recipe, [*QUICK, *more]), tmp_path / str(number))
        runs.append(tmp_path / str(number))
    alone = [Predictor.load(run) for run in runs]
    shared = shared_rows(runs, "a stack")
    results = [json.loads((run / "result.json").read_text("utf-8")) for run in runs]
    assert len(shared) >= results[0]["valid"]["n"] - 1 > 0

    stacked = Predictor.load(runs, ensemble_join("stack", runs))
    told = stacked.ensemble
    assert told is not None
    assert sum(one["weight"] for one in told["members"]) == pytest.approx(1)
    # What a member loses alone is what the run itself measured on its validation rows.
    for one, predictor in zip(told["members"], alone, strict=True):
        losses = predictor.model.row_losses(shared.table)  # type: ignore[attr-defined]
        if kind != "numbers":
            assert one["valid_loss"] == pytest.approx(np.nanmean(losses), rel=1e-3, abs=1e-4)

    souped = Predictor.load(runs, ensemble_join("soup", runs))
    assert souped.ensemble is not None
    known = souped.ensemble["valid_losses"]
    assert known["soup"] <= known["best"]
    mean = Predictor.load(runs, ensemble_join("average", runs))
    table = shared.table
    for predictor in (stacked, souped, mean):
        assert len(predictor.predict_table(table).predictions) == len(table)
    for share, model in ((0.5, mean.model), (0.9, _weighed(mean, 0.9))):
        if kind == "numbers":
            one, other = (np.array(p.predict_table(table).predictions) for p in alone)
            wanted = share * one + (1 - share) * other
            found = model.predict(table).predictions
            np.testing.assert_allclose(found, wanted, rtol=1e-5)
        elif alone[0].names:
            first, second = (p.predict_table(table).probabilities for p in alone)
            assert first is not None
            assert second is not None
            wanted = share * first + (1 - share) * second
            np.testing.assert_allclose(model.predict(table).probabilities, wanted, atol=1e-6)
    if kind == "tags":
        # Nearly all weight on one of them is nearly that one.
        near = _weighed(mean, 1 - 1e-9).row_losses(table)
        np.testing.assert_allclose(near, alone[0].model.row_losses(table), rtol=1e-5)


def _weighed(mean: Predictor, share: float) -> Any:
    return mean.model.with_weights((share, 1 - share))  # type: ignore[attr-defined]
