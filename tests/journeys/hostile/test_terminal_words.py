"""What a stranger wrote into a header, a label or a name is shown and never obeyed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.printable import printable, printable_json

CLEAR = "\x1b[2J\x1b]0;owned\x07"
NASTY = f"la{CLEAR}bel\x9b31m\u202eevil"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def rows(mark: str = "") -> str:
    return "".join(f"text number {i} of many words,{'ab'[i % 2]}{mark}\n" for i in range(60))


def write(folder: Path, text: str, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_header_cannot_write_to_the_terminal(holdfast: Any, tmp_path: Path, sets: Any) -> None:
    path = write(tmp_path, f"text,{NASTY}\n{rows()}")
    for options in (
        ["--dry-run", "--verbose"],
        ["--dry-run"],
        ["--label", "none"],
        ["--text", "x"],
    ):
        done = holdfast("train", path, *sets, *options)
        assert not OBEYED.search(done.out + done.err), options
    assert "\\x1b[2J" in done.err


@pytest.mark.slow
def test_labels_and_file_names_cannot_either(holdfast: Any, tmp_path: Path, sets: Any) -> None:
    path = write(tmp_path, f"text,label\n{rows(NASTY)}", f"re{CLEAR}views.csv")
    for options in (["--dry-run"], ["--out", "run", "--verbose"]):
        done = holdfast("train", path, *sets, "--set", "train.epochs=1", *options)
        assert done.code == 0, done.err
        assert not OBEYED.search(done.out + done.err)
    for command in ("evaluate", "predict"):
        for options in ([], ["--json"] if command == "evaluate" else ["--quiet"]):
            done = holdfast(command, "run", path, *options)
            assert done.code == 0, done.err
            assert not OBEYED.search(done.out + done.err), command
    answer = json.loads(done.out.splitlines()[0])
    assert answer["prediction"] in (f"a{NASTY}", f"b{NASTY}")
    assert "\x1b" not in Path("run/report.html").read_text("utf-8")


@pytest.mark.parametrize("text", [CLEAR, "\u2028", "\udcff", "\ufeff", "a\x00b", "\x7f\x85"])
def test_the_characters_are_written_out_and_json_stays_the_same(text: str) -> None:
    assert not OBEYED.search(printable(text))
    document = json.dumps({text: [text]}, ensure_ascii=False)
    assert not OBEYED.search(printable_json(document))
    assert json.loads(printable_json(document)) == {text: [text]}


def test_what_people_write_stays_as_it_is() -> None:
    text = "naïve café, 東京, 👩‍👩‍👧, می‌خواهم, line\n\ttab — “quoted”"
    assert printable(text) == text
