"""What a learning curve of cross-validation says: a gain, that it is inconclusive, or why none."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.report.view.folds import curve_sentence

GAIN = {"value": 0.02, "low": 0.005, "high": 0.04, "level": 0.95}
STEEPER = "the second doubling of the rows gained more than the first"


def curve(gain: dict[str, Any], told: bool) -> dict[str, Any]:
    one = {"values": [0.7, 0.75, 0.775], "gain": gain, "told": told}
    return {"rows": [25, 50, 100], "next": 200, "metrics": {"accuracy": one, "loss": {}}}


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (curve(GAIN, True), "Expected gain with twice the rows (200): +2.0 points (95 % CI +0.5"),
        (curve({**GAIN, "low": -0.01}, False), "Inconclusive whether twice the rows (200) would"),
        (
            curve({"value": None, "low": None, "high": None, "why": STEEPER}, False),
            f"The gain from twice the rows cannot be estimated: {STEEPER}.",
        ),
        (
            curve({"value": 0.01, "low": None, "high": None, "why": "too few rows"}, False),
            "The gain from twice the rows cannot be estimated: too few rows.",
        ),
    ],
)
def test_a_learning_curve_says_what_twice_the_rows_bring(block: dict[str, Any], said: str) -> None:
    sentence = " ".join(curve_sentence(block).split())
    assert sentence.startswith("Accuracy with 25 / 50 / 100 rows: 70.0 % / 75.0 % / 77.5 %. ")
    assert said in sentence


def test_a_failed_part_is_the_reason_for_no_curve() -> None:
    assert curve_sentence({"why": "a fit failed"}) == "No learning curve: a fit failed."
