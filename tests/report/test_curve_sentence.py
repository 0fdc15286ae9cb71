"""What a learning curve of cross-validation says: a gain, that it is inconclusive, or why none."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.report.view.folds import curve_sentence

GAIN = {"value": 0.02, "low": 0.005, "high": 0.04, "level": 0.95}
STEEPER = "the second doubling of the rows gained more than the first"


def curve(gain: dict[str, Any], told: bool) -> dict[str, Any]:
    span = {"low": 0.6, "high": 0.8, "level": 0.95}
    scores = [{"value": value, **span} for value in (0.7, 0.75, 0.775)]
    one = {"scores": scores, "gain": gain, "told": told}
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
    assert sentence.startswith(
        "Accuracy 70.0 % (95 % CI 60.0–80.0) with 25, 75.0 % (95 % CI 60.0–80.0) with 50, "
        "77.5 % (95 % CI 60.0–80.0) with 100 rows. "
    )
    assert said in sentence


def test_a_failed_part_is_the_reason_for_no_curve() -> None:
    assert curve_sentence({"why": "a fit failed"}) == "No learning curve: a fit failed."
