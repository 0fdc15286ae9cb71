"""What ``holdfast fairness`` prints of a run held against one without mitigation."""

from __future__ import annotations

from typing import Any

from holdfast.terminal.results.fairness import fairness_text

NOTHING: dict[str, Any] = {
    "groups": {"columns": [], "findings": [], "undecided": [], "small": []},
    "swap": None,
}


def test_what_a_mitigation_costs_is_told_in_percent_and_points() -> None:
    trade = {
        "by": "country",
        "measure": "accuracy",
        "gap_plain": 0.25,
        "gap": 0.1,
        "accuracy_plain": 0.9,
        "accuracy": 0.84,
        "line": 0.86,
        "verdict": "no better",
        "gain": {"value": -0.02, "low": -0.035, "high": -0.005},
        "p_adjusted": 0.012,
    }
    text = fairness_text({"fairness": NOTHING, "against": [trade], "openings": 0}, 400)
    assert text.splitlines()[-1] == (
        "- country, accuracy: gap 0.250 → 0.100, accuracy 90.0 → 84.0 %; giving random "
        "rows the most frequent class until the gap is the same would give 86.0 %: no better "
        "(−2.0 points, 95 % CI −3.5 to −0.5; adjusted p 0.012)"
    )
