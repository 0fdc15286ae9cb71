"""The sentence on fairness says what was found, no more."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.analyses.fairness.section import view_of


def block(*measures: str, status: str | None = None) -> dict[str, Any]:
    gap = {"value": -0.2, "low": -0.3, "high": -0.1, "level": 0.95}
    held = {"column": "country", "group": "<b>x</b>", "class": None, "n": 40, "others": 60}
    found = [
        {**held, "measure": one, "gap": gap, "value": 0.7, "value_others": 0.9} for one in measures
    ]
    axis = {
        "axis": "gender",
        "from": "male",
        "to": "female",
        "class": "yes",
        "rows": 40,
        "status": status,
        "change": gap,
        "rows_to_settle": 900,
        "flipped": None,
        "start_model": None,
        "examples": [],
    }
    column = {"column": "country", "groups": {}, "gaps": []}
    groups = {"columns": [column], "findings": found, "undecided": [], "small": []}
    return {"groups": groups, "swap": {"axes": [axis] if status else []}, "false_alarms": {}}


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (block("accuracy"), "Its score differs between groups of rows (country: <b>x</b>)."),
        (block("positive rate"), "Some classes are predicted more often for some groups"),
        (
            block(status="changes"),
            "Its predictions change when a text names another group (gender).",
        ),
        (block(status="undecided"), "No difference is shown on the test rows"),
        (block(), "No difference is shown on the test rows; tested: groups of rows by country."),
    ],
)
def test_the_first_sentence_is_the_answer(given: dict[str, Any], answer: str) -> None:
    assert view_of(given).answer.startswith(answer)


def test_a_gap_and_a_change_are_told_with_interval_and_rows() -> None:
    view = view_of(block("accuracy", status="changes"))
    gap, change = view.findings
    assert "20.0 points below" in gap
    assert "40 of 100 test rows" in gap
    assert "P(yes) changes by −20.0 points" in change
    (line,) = view_of(block(status="undecided")).inconclusive
    assert "about 900 test rows" in line
