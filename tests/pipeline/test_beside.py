"""The columns of a source that stand beside rows of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.errors import DataError
from holdfast.data.source import read_source
from holdfast.recipe import DataPart
from holdfast.runs.finished_run import SourceColumns
from holdfast.tasks import task_definition


def test_the_other_columns_of_the_very_rows_as_the_source_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = ["shop,text,label,price", "a,one,x,1.50", "b,two,y,2", ",three,x,", "d,four,y,4"]
    lines += ["e,five,x,5", "f,six,y,6"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    part = DataPart(path=str(path), text=("text",), label="label")
    table = task_definition("text-classification").read(str(path), part, None)
    found = SourceColumns(part)(table.take([3, 0, 2]))
    assert found == {"shop": ["d", "a", ""], "price": ["4", "1.50", ""]}


def test_sentences_of_words_have_columns_beside_them_too(tmp_path: Path) -> None:
    rows = [{"tokens": ["a", "b"], "tags": ["O", "B-X"], "from": w} for w in ("p", "q", "r")]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    definition = task_definition("token-classification")
    part = DataPart(path=str(path))
    assert SourceColumns(part)(definition.read(str(path), part, None).take([2, 1])) == {
        "from": ["r", "q"]
    }
    conll = tmp_path / "rows.conll"
    conll.write_text("a O\nb B-X\n\nc O\nd B-X\n", encoding="utf-8")
    part = DataPart(path=str(conll))
    assert SourceColumns(part)(definition.read(str(conll), part, None)) == {}


def test_each_source_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(source: str, *rest: Any) -> Any:
        read.append(Path(source).name)
        return read_source(source, *rest)

    monkeypatch.setattr("holdfast.runs.finished_run.read_source", counted)
    part = DataPart(text=("text",), label="label")
    tables = []
    for name in ("one.csv", "two.csv"):
        lines = [f"t{i},{'xy'[i % 2]},{name}{i}" for i in range(6)]
        (tmp_path / name).write_text("\n".join(["text,label,shop", *lines]) + "\n", "utf-8")
        tables.append(task_definition("text-classification").read(str(tmp_path / name), part, None))
    beside = SourceColumns(part)
    for at in (0, 3):
        for table, name in zip(tables, ("one.csv", "two.csv"), strict=True):
            assert beside(table.take([at])) == {"shop": [f"{name}{at}"]}
    assert read == ["one.csv", "two.csv"]


def test_a_source_that_grew_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        "text,label\n" + "".join(f"t{i},{'xy'[i % 2]}\n" for i in range(6)), encoding="utf-8"
    )
    part = DataPart(path=str(path), text=("text",), label="label")
    table = task_definition("text-classification").read(str(path), part, None)
    with path.open("a", encoding="utf-8") as stream:
        stream.write("four,y\n")
    with pytest.raises(DataError, match="changed while it was read"):
        SourceColumns(part)(table)
