"""Feedback in a file: under which names its columns are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.core.errors import DataError
from holdfast.data.raw import Raw
from holdfast.data.source import read_source
from holdfast.plugins.update.feedback import FeedbackRows, read_feedback
from holdfast.recipe import DataPart


def read(path: str) -> Raw:
    return read_source(path, None, None)


def feedback(folder: Path, content: str) -> FeedbackRows:
    """Feedback for a run whose columns are ``review`` and ``verdict``."""
    source, given = folder / "reviews.csv", folder / "feedback.csv"
    source.write_text("review,verdict\nso it is,no\n", encoding="utf-8")
    given.write_text(content, encoding="utf-8")
    part = DataPart(text=("review",), label="verdict")
    return read_feedback(str(given), part, read(str(source)), read)


def test_the_usual_names_stand_for_those_of_the_run(tmp_path: Path) -> None:
    found = feedback(tmp_path, "label,text\nyes,well done\nno,\n")
    assert found.rows.to_pydict() == {"review": ["well done", ""], "verdict": ["yes", "no"]}
    assert {one.chosen for one in found.decisions} == {"text as review", "label as verdict"}


def test_a_column_with_the_run_s_name_is_taken_before_the_usual_one(tmp_path: Path) -> None:
    found = feedback(tmp_path, "text,review,label\nanother,well done,yes\n")
    assert found.rows.to_pydict() == {"review": ["well done"], "verdict": ["yes"]}
    assert [one.chosen for one in found.decisions] == ["label as verdict"]


def test_a_column_under_neither_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no column 'verdict'"):
        feedback(tmp_path, "text,stars\nwell done,5\n")
