"""The records: one JSON form each, undefined numbers with their reason."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from holdfast.core.records import (
    Estimate,
    Evidence,
    Finding,
    Outputs,
    Remedy,
    Scores,
    Snapshot,
    Verdict,
    to_json,
)


def test_an_undefined_number_says_why_and_has_no_level() -> None:
    told = Estimate(None, why="one class only").to_json()
    assert told == {"value": None, "low": None, "high": None, "why": "one class only"}
    assert Estimate(None).to_json()["why"] == "undefined"


def test_a_number_has_its_interval_and_its_note() -> None:
    assert Estimate(0.5, 0.4, 0.6).to_json() == {
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "level": 0.95,
    }
    assert Estimate(0.5, 0.4, 0.6, 0.9, note="few rows").to_json()["note"] == "few rows"


def test_scores_put_their_tables_beside_the_metrics() -> None:
    told = Scores(3, {"accuracy": Estimate(1.0)}, {"confusion": {"counts": np.eye(2)}}).to_json()
    assert told["n"] == 3
    assert told["confusion"]["counts"] == [[1.0, 0.0], [0.0, 1.0]]


def test_a_finding_lists_at_most_a_hundred_rows_and_counts_all() -> None:
    told = Finding("x", "warn", 0.123456789, 500, tuple(range(500)), "b", "r").to_json()
    assert told["rows"] == list(range(100))
    assert told["count"] == 500
    assert told["score"] == 0.123457


def test_a_verdict_is_plain_json() -> None:
    verdict = Verdict(
        "overfit",
        "because",
        0.9,
        30,
        None,
        (Evidence("rise", 0.1, None, float("nan"), 30),),
        (Remedy("stop earlier", ("train.epochs=2",)),),
    )
    told = json.loads(json.dumps(to_json(verdict), allow_nan=False))
    assert told["evidence"] == [
        {"name": "rise", "value": 0.1, "low": None, "high": None, "at_step": 30}
    ]
    assert told["remedies"] == [{"do": "stop earlier", "set": ["train.epochs=2"]}]
    assert told["since_step"] == 30


def test_records_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Estimate(1.0).value = 2.0  # type: ignore[misc]


def test_probabilities_are_the_softmax_even_of_large_logits() -> None:
    logits = np.array([[1000.0, 0.0], [0.0, 0.0], [math.log(3), 0.0]], dtype=np.float32)
    outputs = Outputs(np.arange(3), np.zeros(3, int), logits, np.zeros(3))
    np.testing.assert_allclose(outputs.probabilities, [[1, 0], [0.5, 0.5], [0.75, 0.25]], atol=1e-7)
    assert outputs.predictions.tolist() == [0, 0, 0]


def empty() -> Snapshot:
    nothing = np.zeros(0)
    return Snapshot(
        step=3,
        epoch=0.5,
        examples_seen=8,
        phase="x",
        train_losses=nothing,
        valid_losses=nothing,
        train_metrics={"accuracy": math.nan},
        valid_metrics={},
        refined_loss=math.nan,
        temperature=1.0,
        learning_rate=0.1,
        gradient_norm=None,
        relative_update=None,
        distance=None,
        seconds=1.23456,
    )


def test_an_empty_set_has_a_loss_that_is_no_number() -> None:
    assert math.isnan(empty().valid_loss)
    assert math.isnan(empty().train_loss)
    told = empty().summary()
    assert told["valid_loss"] is None
    assert told["train_metrics"] == {"accuracy": None}
    json.dumps(told, allow_nan=False)
