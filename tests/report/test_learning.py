"""The sentence on the generalization gap."""

from __future__ import annotations

import pytest

from holdfast.report.run_files import RunFiles
from holdfast.report.view.learning import gap


@pytest.mark.parametrize(
    ("name", "train", "valid", "words"),
    [
        ("perplexity", 4.47, 24.38, "a generalization gap of 19.91"),
        ("perplexity", 24.38, 4.47, "a generalization gap of −19.91"),
        ("accuracy", 0.95, 0.85, "a generalization gap of 10.0 points"),
        ("r2", 0.9, 0.7, "a generalization gap of 0.2"),
    ],
)
def test_a_gap_above_0_is_a_worse_score_on_validation_rows(
    name: str, train: float, valid: float, words: str
) -> None:
    def scores(value: float) -> dict[str, object]:
        return {"n": 9, "metrics": {name: {"value": value, "low": None, "high": None}}}

    view = gap(RunFiles({"train_probe": scores(train), "valid": scores(valid), "test": scores(0)}))
    assert words in view.sentence.translate({160: " "}).replace("-", "−")
