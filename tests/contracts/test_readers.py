"""Every reader gives the same rows for the same table; a reader without a kit fails here."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdfast.core.errors import DataError
from holdfast.data.readers import all_readers
from holdfast.data.source import read_source

ROWS = [
    {"text": "plain words", "label": "pos", "note": "1e5"},
    {"text": "comma, semicolon; tab\tand \"quotes\" 'too'", "label": "neg", "note": "007"},
    {"text": "two\nlines and\r\nthree", "label": "pos", "note": "NA"},
    {"text": "Größe, 東京, 🙂, e\u0301 and \u200bzero width", "label": "neg", "note": "null"},
    {"text": "", "label": "pos", "note": "nan"},
    {"text": "  spaces kept  ", "label": "", "note": "True"},
    {"text": "back\\slash \\n not a line", "label": "neg", "note": ""},
    {"text": '"', "label": "pos", "note": "1.50"},
]


def _csv(rows: list[dict[str, str]], delimiter: str) -> bytes:
    target = io.StringIO()
    writer = csv.DictWriter(target, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return target.getvalue().encode()


def _jsonl(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _parquet(rows: list[dict[str, str]]) -> bytes:
    target = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), target)
    return target.getvalue()


def _xlsx(rows: list[dict[str, str]]) -> bytes:
    import openpyxl

    book, target = openpyxl.Workbook(write_only=True), io.BytesIO()
    sheet = book.create_sheet("Data")
    sheet.append(list(rows[0]))
    for row in rows:
        # As Excel itself writes a carriage return, which XML would drop.
        sheet.append([cell.replace("\r", "_x000D_") for cell in row.values()])
    book.save(target)
    return target.getvalue()


KITS: dict[str, Callable[[list[dict[str, str]]], bytes]] = {
    "csv": lambda rows: _csv(rows, ","),
    "tsv": lambda rows: _csv(rows, "\t"),
    "jsonl": _jsonl,
    "json": lambda rows: json.dumps(rows, indent=1).encode(),
    "parquet": _parquet,
    "xlsx": _xlsx,
}


def _write(folder: Path, name: str, rows: list[dict[str, str]], *, packed: bool) -> Path:
    suffix = all_readers()[name].suffix
    path = folder / f"data{suffix}{'.gz' if packed else ''}"
    content = KITS[name](rows)
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def test_every_reader_has_a_kit() -> None:
    assert set(all_readers()) == set(KITS)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", sorted(all_readers()))
def test_a_reader_hands_on_every_value_as_written(name: str, packed: bool, tmp_path: Path) -> None:
    raw = read_source(_write(tmp_path, name, ROWS, packed=packed), None, None)
    assert raw.names == ["text", "label", "note"]
    assert [{k: v or "" for k, v in row.items()} for row in raw.table.to_pylist()] == ROWS


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(all_readers()))
def test_a_reader_keeps_the_order_over_many_batches(name: str, tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "label": str(n % 3)} for n in range(25_001)]
    raw = read_source(_write(tmp_path, name, rows, packed=False), None, None)
    assert raw.table["text"].to_pylist() == [row["text"] for row in rows]


@pytest.mark.parametrize("name", sorted(all_readers()))
def test_a_reader_writes_nothing_beside_the_file(name: str, tmp_path: Path) -> None:
    path = _write(tmp_path, name, ROWS, packed=True)
    read_source(path, None, None)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", sorted(all_readers()))
def test_a_reader_refuses_an_empty_file(name: str, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / f"data{all_readers()[name].suffix}{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(b"") if packed else b"")
    with pytest.raises(DataError, match=r"empty|not a readable"):
        read_source(path, None, None)


@pytest.mark.parametrize("name", sorted(all_readers()))
def test_a_reader_refuses_a_damaged_archive(name: str, tmp_path: Path) -> None:
    path = _write(tmp_path, name, ROWS * 500, packed=True)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"cut short|damaged"):
        read_source(path, None, None)


@pytest.mark.parametrize("name", sorted(all_readers()))
def test_a_reader_refuses_what_is_not_its_format(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"data{all_readers()[name].suffix}"
    path.write_bytes(b'text,label\nok,1\n\x00\x01 <html>,"\n')
    with pytest.raises(DataError):
        read_source(path, None, None)
