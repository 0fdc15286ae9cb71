"""A treated copy of a file, its log, and the way back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from holdfast.analyses.audit.fix import LOG, FileColumns, fix
from holdfast.core.errors import DataError, HoldfastError, RecipeError, RunError
from holdfast.data.source import read_source

ROWS = [
    {"id": 1, "text": "cafÃ© au lait", "label": "good", "score": 0.5, "ok": True},
    {"id": 2, "text": "plain, with a comma", "label": "bad", "score": 1.25, "ok": False},
    {"id": 3, "text": "plain, with a comma", "label": "bad", "score": None, "ok": True},
    {"id": 4, "text": "<b>bold</b>\nlines\ufeff", "label": "Good ", "score": 2.0, "ok": None},
    {"id": 5, "text": "write to jo@example.com", "label": "good", "score": 3.5, "ok": True},
    {"id": 6, "text": "", "label": "good", "score": 3.5, "ok": True},
]
ASKED = {"encoding": True, "control": True, "markup": True, "labels": True, "copies": True}


def write(path: Path) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix == ".csv":
        table = pa.Table.from_pylist(ROWS).drop_columns(["ok"])
        import csv

        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, table.column_names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(table.to_pylist())
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    return path


def cells(path: Path) -> dict[str, list[str | None]]:
    return read_source(str(path), None, None).table.to_pydict()


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_file_is_treated(tmp_path: Path, ending: str) -> None:
    source = write(tmp_path / f"in{ending}")
    out = tmp_path / f"out{ending}"
    fixed = fix(FileColumns(str(source), ["text"], "label"), out, ASKED)
    assert fixed.counts == {"encoding": 1, "control": 1, "markup": 1, "labels": 1, "copies": 1}
    assert (fixed.rows, fixed.left_out) == (5, 1)
    made = cells(out)
    assert made["text"][:3] == ["café au lait", "plain, with a comma", "bold\nlines"]
    assert made["id"] == ["1", "2", "4", "5", "6"]
    assert made["label"][2] == "good"
    log = [json.loads(one) for one in (tmp_path / f"out{ending}{LOG}").read_text().splitlines()]
    assert {"row": 0, "treatment": "encoding", "column": "text"}.items() <= log[0].items()
    if ending == ".parquet":
        assert parquet.read_schema(out) == parquet.read_schema(source)


def test_formats_may_change_and_types_stay(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl")
    fix(FileColumns(str(source), ["text"]), tmp_path / "out.jsonl.gz", {"control": True})
    fix(FileColumns(str(source), ["text"]), tmp_path / "out.parquet", {"control": True})
    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["score"] for row in rows] == [row["score"] for row in ROWS]
    assert cells(tmp_path / "out.jsonl.gz") == cells(tmp_path / "out.parquet")


@pytest.mark.parametrize(("ending", "mark"), [(".csv", ","), (".tsv", "\t")])
def test_a_carriage_return_in_a_cell_begins_no_row(tmp_path: Path, ending: str, mark: str) -> None:
    rows = [{"text": f"one\rtwo {n}", "label": str(n % 2)} for n in range(6)]
    source, out = tmp_path / "in.jsonl", tmp_path / f"out{ending}"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    fix(FileColumns(str(source), ["text"], "label"), out, {"missing": True})
    found = pd.read_csv(out, sep=mark, dtype=str)
    assert found.to_dict("records") == rows


def test_a_treated_file_has_nothing_left_to_treat(tmp_path: Path) -> None:
    source, once = write(tmp_path / "in.csv"), tmp_path / "once.csv"
    fix(FileColumns(str(source), ["text"], "label"), once, ASKED)
    again = fix(FileColumns(str(once), ["text"], "label"), tmp_path / "twice.csv", ASKED)
    assert not again.counts
    assert (tmp_path / "twice.csv").read_bytes() == once.read_bytes()


def test_copies_are_counted_where_that_is_asked(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.csv"), tmp_path / "out.csv"
    asked = {"copies": {"count": "stands_for"}}
    fix(FileColumns(str(source), ["text"], "label"), out, asked)
    assert cells(out)["stands_for"] == ["1", "2", "1", "1", "1"]


def test_what_was_masked_is_written_nowhere(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.csv"), tmp_path / "out.csv"
    fixed = fix(FileColumns(str(source), ["text"], "label"), out, {"mask": True, **ASKED})
    assert fixed.lost == ((4, "text"),)
    for path in (out, tmp_path / f"out.csv{LOG}"):
        assert "jo@example.com" not in path.read_text()
    assert '"reversible": false' in (tmp_path / f"out.csv{LOG}").read_text()


def test_what_is_in_the_way_is_not_written_over(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.csv"), tmp_path / "out.csv"
    before = source.read_bytes()
    with pytest.raises(RunError, match="is the input"):
        fix(FileColumns(str(source), ["text"]), source, ASKED, force=True)
    out.write_text("mine")
    with pytest.raises(RunError, match="exists already"):
        fix(FileColumns(str(source), ["text"]), out, ASKED)
    assert (source.read_bytes(), out.read_text()) == (before, "mine")
    with pytest.raises(RecipeError, match="ending"):
        fix(FileColumns(str(source), ["text"]), tmp_path / "out.doc", ASKED)
    with pytest.raises(DataError, match="no such column"):
        fix(FileColumns(str(source), ["body"]), tmp_path / "o.csv", ASKED)


def test_a_copy_that_cannot_be_written_leaves_no_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("holdfast.analyses.audit.fix._write_as", full)
    source, out = write(tmp_path / "in.csv"), tmp_path / "out.csv"
    with pytest.raises((OSError, HoldfastError)):
        fix(FileColumns(str(source), ["text"], "label"), out, ASKED)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv"]


def test_an_instruction_needs_no_input_and_another_answer_is_no_copy(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Name a fruit.", "input": "", "output": "An apple."},
        {"instruction": "Name a fruit.", "input": "", "output": "A pear."},
        {"instruction": "Name a fruit.", "input": "", "output": "A pear."},
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
        {"instruction": "", "input": " ", "output": "Nothing was asked."},
        {"instruction": "Add.", "input": "1 and 3", "output": None},
    ]
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    columns = FileColumns(str(source), ["instruction", "input"], None, ["output"], any_text=True)
    fixed = fix(columns, out, {"missing": True, "copies": True})
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        rows[at] for at in (0, 1, 3)
    ]
    assert fixed.counts == {"missing": 2, "copies": 1}
    fixed = fix(replace(columns, any_text=False), tmp_path / "all.jsonl", {"missing": True})
    assert fixed.rows == 1
