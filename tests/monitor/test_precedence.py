"""The table of precedence: in code, in the documents, and as it decides."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from holdfast.core.labels import Label
from holdfast.monitor.history import History
from holdfast.monitor.judge import CAUSES, ORDER, likeliest_cause, verdict_of, winner
from holdfast.monitor.symptom import Symptom

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "verdicts.md").read_text("utf-8")


def lines(heading: str) -> list[list[str]]:
    part = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in part.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_documents_show_this_table() -> None:
    assert lines("Which label wins") == [
        [f"`{name}`", f"`{label}`", why] for name, label, why in ORDER
    ]


def test_every_label_can_be_given_and_is_explained() -> None:
    assert {label for _, label, _ in ORDER} | {"inconclusive"} == set(get_args(Label))
    assert {row[0].strip("`") for row in lines("Each label")} == set(get_args(Label))


@pytest.mark.parametrize("place", range(len(ORDER)))
def test_each_line_wins_over_all_that_follow(place: int) -> None:
    symptoms = {name: Symptom("x", 0.5, label) for name, label, _ in ORDER[place:]}
    assert winner(symptoms) == ORDER[place][0]


def test_a_sign_without_a_label_never_wins() -> None:
    assert winner({"rate_high": Symptom("x", cause="c"), "disparity": Symptom("y")}) is None


def test_the_most_blamed_cause_that_explains_the_label_is_named() -> None:
    symptoms = {
        "overfit": Symptom("x", 0.9, "overfit", cause="too long", blame=0.4),
        "few_rows": Symptom("y", cause="few", blame=0.6, explains=("overfit",)),
        "rate_low": Symptom("z", cause="slow", blame=1.0, explains=("underfit",)),
    }
    assert likeliest_cause(symptoms, "overfit") == "few_rows"
    assert likeliest_cause(symptoms, "underfit") == "rate_low"
    assert likeliest_cause(symptoms, "healthy") is None


def test_on_a_tie_the_earlier_cause_of_the_table_is_named() -> None:
    symptoms = {name: Symptom("x", cause=name, blame=0.5, explains=("overfit",)) for name in CAUSES}
    assert likeliest_cause(symptoms, "overfit") == CAUSES[0]


def test_the_remedies_against_the_cause_come_first_and_evidence_has_each_name_once(history) -> None:
    from holdfast.core.records import Evidence, Remedy

    symptoms = {
        "overfit": Symptom(
            "the loss rose",
            0.9,
            "overfit",
            cause="too long",
            blame=0.1,
            evidence=(Evidence("a", 1.0),),
            remedies=(Remedy("one"), Remedy("two")),
        ),
        "few_rows": Symptom(
            "few",
            cause="few",
            blame=0.6,
            explains=("overfit",),
            evidence=(Evidence("a", 2.0), Evidence("b", 3.0)),
            remedies=(Remedy("two"),),
        ),
    }
    verdict = verdict_of(History(tuple(history([1.0, 0.5], [1.0, 0.5]))), symptoms)
    assert verdict.cause == "few"
    assert [remedy.do for remedy in verdict.remedies] == ["two", "one"]
    assert [(e.name, e.value) for e in verdict.evidence] == [("a", 1.0), ("b", 3.0)]
    assert verdict.because == "The loss rose."
