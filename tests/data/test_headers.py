"""Which column is meant where several could be: a safe guess is said, any other is a question."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from holdfast.core.decisions import decisions_in, record_decisions
from holdfast.core.errors import DataError
from holdfast.core.records import Decision
from holdfast.data.columns.columns import choose_columns
from holdfast.data.columns.profile import column_key
from holdfast.data.options import RowOptions
from holdfast.data.source import read_source
from holdfast.data.table import Columns

ROWS = 120
VALUES = {
    "text": lambda n, r: f"a longer text of so many words is number {n} of all {r:.6f}",
    "title": lambda n, r: f"title {n} here {r:.3f}",
    "id": lambda n, r: n,
    "star": lambda n, r: int(5 * r) + 1,
    "yes/no": lambda n, r: ("yes", "no")[int(1000 * r) % 2],
    "topic": lambda n, r: ("bug", "account", "billing")[int(77 * r) % 3],
    "topic id": lambda n, r: int(77 * r) % 3,
    "money": lambda n, r: f"{1000 * r:.2f}",
    "day": lambda n, r: f"2024-05-{int(28 * r) + 1:02d}",
}


def choose(path: Path, **columns: str) -> tuple[Columns, tuple[Decision, ...]]:
    """The columns of a file whose headers are ``columns`` (``__`` for a space)."""
    numbers = np.random.default_rng(0).random((ROWS, len(columns)))
    cells = [
        [
            str(VALUES[kind](n, row[0 if "topic" in kind else at]))
            for at, kind in enumerate(columns.values())
        ]
        for n, row in enumerate(numbers)
    ]
    lines = [[name.replace("__", " ") for name in columns], *cells]
    path.write_text("\n".join(",".join(line) for line in lines) + "\n")
    with record_decisions() as log:
        found = choose_columns(read_source(path, None, None), RowOptions())
    return found, decisions_in(log)


PLAIN = {
    "text and label": ({"text": "text", "label": "yes/no"}, "text", "label"),
    "films": ({"review": "text", "sentiment": "yes/no"}, "review", "sentiment"),
    "restaurants": (
        {"text": "text", "stars": "star", "useful": "star", "funny": "star", "date": "day"},
        "text",
        "stars",
    ),
    "products": (
        {
            "id": "id",
            "Review__Text": "text",
            "Rating": "star",
            "verified": "yes/no",
            "price": "money",
            "country": "topic",
        },
        "Review Text",
        "Rating",
    ),
    "tickets": (
        {"ticket": "text", "category": "topic", "status": "yes/no", "user_id": "star"},
        "ticket",
        "category",
    ),
    "survey": (
        {"respondent": "id", "comment": "text", "gender": "yes/no", "sentiment": "topic"},
        "comment",
        "sentiment",
    ),
    "a label among outcomes": (
        {"message": "text", "label": "yes/no", "is_spam": "topic", "rating": "star"},
        "message",
        "label",
    ),
    "the same twice": (
        {"text": "text", "category": "topic", "category_type": "topic id"},
        "text",
        "category",
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_files_are_not_asked_about(name: str, tmp_path: Path) -> None:
    columns, text, label = PLAIN[name]
    found, told = choose(tmp_path / "a.csv", **columns)
    assert (found.text, found.label) == ((text,), label)
    assert len(told) == 2


ASKED = {
    "rating beside recommended": (
        {"review": "text", "rating": "star", "recommended": "yes/no"},
        ["rating", "recommended"],
    ),
    "clothes": (
        {
            "Title": "title",
            "Review__Text": "text",
            "Rating": "star",
            "Recommended__IND": "yes/no",
            "Class__Name": "topic",
        },
        ["Rating", "'Recommended IND'", "'Class Name'"],
    ),
    "tickets with a priority": (
        {"description": "text", "category": "topic", "priority": "star", "status": "yes/no"},
        ["category", "priority"],
    ),
    "sentiment beside its score": (
        {"text": "text", "sentiment": "yes/no", "sentimentScore": "star"},
        ["sentiment", "sentimentScore"],
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_rivals_are_a_question_with_its_answers(name: str, tmp_path: Path) -> None:
    columns, rivals = ASKED[name]
    with pytest.raises(DataError, match="several columns that could be the label") as refused:
        choose(tmp_path / "a.csv", **columns)
    answers = " or ".join(f"--label {rival}" for rival in rivals)
    assert answers in refused.value.remedy
    assert "values: " in str(refused.value.value)


def twins(path: Path, cells: list[tuple[str, str, str]], header: str) -> Columns:
    path.write_text("\n".join([header, *map(",".join, cells)]) + "\n")
    raw = read_source(path, None, None)
    with record_decisions() as log:
        found = choose_columns(raw, RowOptions())
    if len({column_key(name) for name in raw.names}) < len(raw.names):
        assert "has the same name but for case" in " ".join(decision.because for decision in log)
    return found


def test_of_two_headers_alike_the_fuller_is_taken_and_said(tmp_path: Path) -> None:
    rows = [
        (f"words of row {n}", "" if n % 3 else f"other words {n}", "xy"[n % 2]) for n in range(30)
    ]
    for order, header in ((1, "Review,review ,label"), (-1, "review ,Review,label")):
        cells = [(*row[:2][::order], row[2]) for row in rows]
        taken = twins(tmp_path / "a.csv", cells, header)
        assert taken.text == ("Review",)


def test_twins_of_the_label_that_differ_are_a_question(tmp_path: Path) -> None:
    letters = itertools.cycle("xxy")
    rows = [(f"words of row {n}", "ab"[n % 2], next(letters)) for n in range(30)]
    with pytest.raises(DataError, match="--label Label or --label LABEL"):
        twins(tmp_path / "a.csv", rows, "text,Label,LABEL")
    same = [(text, label, label.upper()) for text, label, _ in rows]
    assert twins(tmp_path / "b.csv", same, "text,Label,LABEL").label == "Label"
