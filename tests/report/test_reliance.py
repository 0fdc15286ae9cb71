"""What a user must know before relying on the model: few lines, the gravest first, each with the
section that says more."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holdfast.report.card import write_card
from holdfast.report.contents import report_sections
from holdfast.report.page import write_report
from holdfast.report.run_files import read_run
from holdfast.report.view.reliance import MAX_LINES, Reliance, reliance

CHECKS = {one.key: one.reliance for one in report_sections() if one.reliance}
ALL = set(CHECKS)


def value(number: float, half: float = 0.1) -> dict[str, Any]:
    return {"value": number, "low": number - half, "high": number + half, "level": 0.95}


SLICE = {"slice": "texts of 40 words or more", "n": 30, "value": value(0.4), "rest": value(0.1)}
WORD = {"class": "bad", "words": "zorvex", "of_class": 0.9, "of_others": 0.0, "gives_away": True}
FOUND: dict[str, Any] = {
    "worth": {"verdict": "no", "because": "No."},
    "reasons": {"words": [{**WORD, "words": "quiet", "gives_away": False}, WORD]},
    "slices": {
        "what": "wrong",
        "n_candidates": 3,
        "undecided": [],
        "found": [SLICE, {**SLICE, "slice": "shop is b"}],
    },
    "fairness": {
        "groups": {"findings": [{"column": "region", "group": "north"}], "columns": [{}]},
        "swap": {"axes": [{"axis": "names", "status": "changes"}]},
    },
    "probes": {
        "memorization": {"verdict": "memorized", "auc": value(0.83)},
        "forgetting": {"forgot": True, "because": "It forgot some of what it knew: by 0.3."},
    },
    "outputs": {
        "shares": [{"side": "test", "mark": "cut", "verdict": "more", "n": 9}],
        "meaning": {"cut": "end in the middle"},
    },
    "thresholds": {
        "promises": [
            {"precision": 0.9, "threshold": 0.7, "test": {"coverage": value(0.61)}},
            {"precision": 0.95, "threshold": None, "test": None},
        ]
    },
}
CLEAN: dict[str, Any] = {
    "worth": {"verdict": "yes"},
    "reasons": {"words": [{**WORD, "gives_away": False}]},
    "slices": {"what": "wrong", "n_candidates": 8, "found": [], "undecided": []},
    "fairness": {"groups": {"findings": [], "columns": [{}]}, "swap": {"axes": []}},
    "probes": {
        "memorization": {"verdict": "not shown", "auc": {"value": 0.5, "low": 0.45, "high": 0.55}},
        "forgetting": {"forgot": False},
    },
    "outputs": {"shares": [{"side": "test", "mark": "cut", "verdict": "not shown", "n": 9}]},
}


@pytest.fixture
def told(runs: ModuleType, tmp_path: Path) -> Any:
    def make(blocks: dict[str, Any], shown: set[str] = ALL) -> Reliance | None:
        run = runs.make_run(tmp_path / "told", edit=lambda result: result.update(blocks))
        return reliance(read_run(run), shown)

    return make


def test_at_most_five_lines_the_gravest_first_and_how_to_use_it_last(told: Any) -> None:
    found = told(FOUND)
    assert [line.section for line in found.lines] == [
        "worth",
        "reasons",
        "slices",
        "fairness",
        "thresholds",
    ]
    assert len(found.lines) == MAX_LINES
    assert found.rest == "3 more in the sections below."
    texts = [line.text.replace("\u00a0", " ") for line in found.lines]
    assert texts[1].startswith("Its predictions of class bad depend on “zorvex”")
    assert "90.0 %" in texts[1]
    assert "0.0 % of the others" in texts[1]
    assert texts[2] == (
        "It makes more errors on texts of 40 words or more: error rate 40.0 %, other rows 10.0 %; "
        "also on 1 other slice."
    )
    assert texts[3] == (
        "Its score differs between groups of rows (region north) and its predictions change when a "
        "text names another group (names)."
    )
    assert "have a precision of at least 90 %" in texts[4]


def test_what_was_looked_for_and_not_found_is_one_line(told: Any) -> None:
    found = told(CLEAN)
    assert found.lines == ()
    assert found.rest.startswith("Tested and not found: ")
    assert all(one.looked_for in found.rest for one in CHECKS.values() if not one.is_use)
    undecided = {**CLEAN, "probes": {"memorization": {"verdict": "undecided"}}}
    assert "Inconclusive, because of too few rows: memorized training rows." in told(undecided).rest
    wide = {"verdict": "not shown", "auc": {"value": 0.63, "low": 0.48, "high": 0.75}}
    undecided = {**CLEAN, "probes": {"memorization": wide}}
    assert "Inconclusive, because of too few rows: memorized training rows." in told(undecided).rest
    swap = {"axes": [{"axis": "region", "status": "undecided"}]}
    undecided = {**CLEAN, "fairness": {**CLEAN["fairness"], "swap": swap}}
    assert ": differences between groups." in told(undecided).rest
    # A group that too few rows have was not tested, and was not found clean.
    for why in ("undecided", "small"):
        groups = {**CLEAN["fairness"]["groups"], why: [{"column": "region", "group": "north"}]}
        found = told({**CLEAN, "fairness": {**CLEAN["fairness"], "groups": groups}}).rest
        assert "Inconclusive, because of too few rows: differences between groups." in found


@pytest.mark.parametrize("section", sorted(ALL))
def test_each_part_speaks_for_itself_and_only_where_its_section_is_shown(
    told: Any, section: str
) -> None:
    (line,) = told(FOUND, {section}).lines
    assert line.section == section
    assert told(FOUND, set()) is None
    if section != "thresholds":
        assert told(CLEAN, {section}).lines == ()


def test_where_nothing_can_be_promised_that_is_said(told: Any) -> None:
    none = {"promises": [{"precision": 0.9, "threshold": None, "test": None}]}
    (line,) = told({"thresholds": none}).lines
    assert "guarantees a precision" in line.text


@pytest.mark.parametrize(
    ("start", "text"),
    [
        (None, "The model completes 3 training rows verbatim."),
        (1, "The model completes 3 training rows verbatim (base model: 1)."),
        (3, None),
    ],
)
def test_a_row_completed_to_the_word_is_said_even_where_losses_tell_nothing(
    told: Any, start: int | None, text: str | None
) -> None:
    block = {"verdict": "not shown", "extraction": {"n": 50, "completed": 3, "start": start}}
    lines = told({"probes": {"memorization": block}}).lines
    assert [line.text for line in lines] == ([text] if text else [])


@pytest.mark.parametrize("broken", [{}, {"slices": {}, "fairness": {}, "probes": {}}])
def test_a_run_of_an_older_version_has_no_such_list(told: Any, broken: dict[str, Any]) -> None:
    assert told({"probes": {}, **broken}) is None


def test_page_and_card_say_the_same_and_the_page_leads_to_its_sections(
    runs: ModuleType, read_page: Any, tmp_path: Path
) -> None:
    hostile = {**FOUND["slices"], "found": [{**SLICE, "slice": "<b>x</b> " + "w" * 200}]}
    blocks = {"slices": hostile, "probes": FOUND["probes"]}
    run = runs.make_run(tmp_path / "run", edit=lambda result: result.update(blocks))
    source = write_report(run).read_text("utf-8")
    top = source[source.index('<header id="verdict"') : source.index("</header>")]
    assert "Before you rely on it" in top
    links = re.findall(r'<a href="#(\w+)">([\w ]+)</a>', top)
    assert ("memory", "Memorization") in links
    assert all(f'<section id="{link}"' in source for link, _ in links)
    assert "<b>x</b>" not in source
    card = write_card(run).read_text("utf-8")
    assert "## Before you rely on it" in card
    assert "memorized training rows" in card
    assert "memorized training rows: membership" in read_page(run / "report.html").text
