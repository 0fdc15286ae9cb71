"""An audit that says which rows to label next, from a file to what a person and a script read."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from holdfast.api.commands import audit
from holdfast.core.errors import RecipeError

PLACES = ("Rome", "Oslo", "Lima", "Cairo", "Delhi", "Quito", "Perth", "Seoul", "Paris", "Turin")
WORDS = ("train", "hotel", "museum", "river", "market", "tower", "school", "stadium", "bridge")


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    return path


def asked(classes: int, each: int) -> list[tuple[str, str]]:
    pairs = [(place, word) for word in WORDS for place in PLACES][:classes]
    return [
        (f"How do I get to the {word} of {place} by {n + 6} o'clock?", f"{word} {place}")
        for n in range(each)
        for place, word in pairs
    ]


@pytest.mark.slow
def test_rows_of_the_source_without_a_label(tmp_path: Path, holdfast) -> None:
    rows = asked(24, 3)
    waiting = {5, 30, 31, 70}
    rows = [(text, "" if at in waiting else label) for at, (text, label) in enumerate(rows)]
    source = write(tmp_path / "rows.csv", rows)
    done = holdfast("audit", source, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)["label_next"]
    assert {*found["rows"]} == waiting
    assert found["count"] == 4
    assert found["ranked"] is True
    assert found["file"] == str(source)
    shown = holdfast("audit", source).out
    assert "4 rows of" in shown
    assert "Label these first" in " ".join(shown.split())
    assert f"row {found['rows'][0]}: How do I get" in shown


def test_a_file_of_texts_and_few_classes(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.csv", asked(4, 12))
    fresh = tmp_path / "fresh.txt.csv"
    fresh.write_text("text\n" + "".join(f"{word} nearby\n" for word in WORDS), encoding="utf-8")
    found = audit(source, settings=[f"data.unlabelled={fresh}"]).label_next
    assert found is not None
    assert not found.ranked
    assert "taught no more than random ones" in found.because
    assert sorted(found.rows) == list(range(len(WORDS)))
    assert found.shown[0] == f"{WORDS[found.rows[0]]} nearby"
    assert audit(source).label_next is None
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="has no column 'text'"):
        audit(source, settings=[f"data.unlabelled={tmp_path / 'bad.csv'}"])
