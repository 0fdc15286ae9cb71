"""The journal: what a resume makes of the file, whatever became of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast.core.errors import RunError
from holdfast.training.journal import NAME, Journal


def written(folder: Path, count: int = 3) -> str:
    journal = Journal(folder)
    for step in range(count):
        journal.note(step, "was heard", "ä reason")
    return journal.text


def test_the_text_is_the_file(tmp_path: Path) -> None:
    assert written(tmp_path) == (tmp_path / NAME).read_text("utf-8")


def test_what_came_after_a_checkpoint_is_dropped(tmp_path: Path) -> None:
    text = written(tmp_path)
    for after in ('{"event": "note", "step": 9}\n', '{"event": "no', "\0\0\0"):
        (tmp_path / NAME).write_text(text + after, "utf-8")
        journal = Journal(tmp_path)
        assert journal.restore(text) is None
        assert (tmp_path / NAME).read_text("utf-8") == text
        journal.note(9, "goes", "on")
        assert (tmp_path / NAME).read_text("utf-8") == journal.text


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(b""), "is shorter"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "is shorter"),
        (lambda path: path.write_bytes(b"\xff" + path.read_bytes()[1:]), "was changed"),
        (lambda path: path.write_bytes(b"\0" * 500), "was changed"),
    ],
)
def test_a_damaged_file_is_written_again_and_said(tmp_path: Path, damage, said: str) -> None:
    text = written(tmp_path)
    damage(tmp_path / NAME)
    assert said in str(Journal(tmp_path).restore(text))
    assert (tmp_path / NAME).read_text("utf-8") == text


def test_a_folder_or_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(RunError, match="is a folder"):
        Journal(tmp_path).restore("x")
    (tmp_path / NAME).rmdir()
    (tmp_path / NAME).symlink_to(NAME)
    with pytest.raises(RunError, match="is a link"):
        Journal(tmp_path).restore("x")


def test_lines_that_are_no_objects_are_passed_over(tmp_path: Path) -> None:
    deep = "[" * 100_000
    odd = ["1", "null", '"a"', "[1]", deep, "\0", '{"what": "torn']
    (tmp_path / NAME).write_text('{"what": "a"}\n' + "\n".join(odd), "utf-8")
    assert [line["what"] for line in Journal(tmp_path).lines()] == ["a"]
    assert Journal(tmp_path / "absent").lines() == []


def test_a_lone_surrogate_does_not_end_a_run(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.note(0, "\udcff", "of a file's name")
    assert json.loads((tmp_path / NAME).read_text("utf-8"))["what"] == "?"
    assert journal.text == (tmp_path / NAME).read_text("utf-8")
