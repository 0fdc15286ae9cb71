from __future__ import annotations

from typing import Any

from holdfast.analyses.threshold.section import thresholds
from holdfast.report.run_files import RunFiles


def _line(promise: float, threshold: float | None, coverage: float = 0.0) -> dict[str, Any]:
    rate = {"value": 0.97, "low": 0.91, "high": 0.99}
    test = {"coverage": {"value": coverage}, "precision": rate} if threshold else None
    why = None if threshold else "40 validation rows"
    return {
        "precision": promise,
        "threshold": threshold,
        "test": test,
        "why": why,
        "rows_needed": 900,
    }


def test_the_strictest_promise_that_can_be_made_is_the_answer() -> None:
    lines = [_line(0.9, 0.7, 0.8), _line(0.95, 0.83, 0.61), _line(0.99, None)]
    found = thresholds(RunFiles({"thresholds": {"promises": lines, "broken_in": 0.05}}))
    assert found is not None
    assert "at least 95" in found.sentence
    assert "61.0" in found.sentence
    assert [line[1] for line in found.tables[0].lines] == ["70.0\u00a0%", "83.0\u00a0%", "none"]
    assert "about 900 validation rows are needed" in found.tables[0].lines[2][4]


def test_where_nothing_can_be_promised_it_says_so() -> None:
    found = thresholds(
        RunFiles({"thresholds": {"promises": [_line(0.9, None)], "broken_in": 0.05}})
    )
    assert found is not None
    assert "guarantees a precision" in found.sentence
    assert thresholds(RunFiles({"thresholds": {}})) is None
    assert thresholds(RunFiles({"thresholds": {"why": "numbers"}})) is None
