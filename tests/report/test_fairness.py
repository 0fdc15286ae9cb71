"""The sentence on fairness says what was found, no more."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.analyses.fairness.section import as_document
from holdfast.report.document import Items
from holdfast.terminal.document import document_lines


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
        (
            block(status="undecided"),
            "No difference is shown on the test rows; tested: groups of rows by country. "
            "Inconclusive: texts with gender swapped.",
        ),
        (block(), "No difference is shown on the test rows; tested: groups of rows by country."),
    ],
)
def test_the_first_sentence_is_the_answer(given: dict[str, Any], answer: str) -> None:
    assert as_document(given).sentence.startswith(answer)


def test_a_gap_and_a_change_are_told_with_interval_and_rows() -> None:
    found = next(
        part
        for part in as_document(block("accuracy", status="changes")).parts
        if isinstance(part, Items)
    )
    gap, change = found.lines
    assert "20.0 points below" in gap
    assert "40 of 100 test rows" in gap
    assert "P(yes) changes by −20.0 points" in change
    lines = document_lines(as_document(block(status="undecided")), 200)
    assert any("about 900 would decide" in line for line in lines)


def test_groups_are_compared_measure_by_measure_under_their_own_names() -> None:
    def measured(rows: int, value: float) -> dict[str, Any]:
        one = {"measure": "accuracy", "class": None, "value": value, "low": 0.5, "high": 0.9}
        return {"rows": rows, "measures": [one | {"level": 0.95}]}

    given = block()
    column = {"column": "country", "groups": {"FR": measured(40, 0.7), "new york": measured(60, 0)}}
    given["groups"]["columns"] = [column]
    lines = document_lines(as_document(given), 200)
    assert lines[1:] == [
        "By country:",
        "- accuracy: FR (40 test rows) 70.0 % (50.0–90.0); new york (60 test rows) 0.0 % "
        "(50.0–90.0)",
    ]
