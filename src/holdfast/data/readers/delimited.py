"""CSV and TSV, by the rules of RFC 4180, strictly.

Quoted cells may hold delimiters, doubled quotes and line ends. Blank lines are not rows. Nothing
becomes a number or a missing value here: ``007``, ``NA`` and ``1e5`` stay what they are.
Differs from the lenient readers of pandas and Polars in that a malformed row is never repaired.

Source: Y. Shafranovich, RFC 4180, 2005.
"""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from holdfast.core.errors import DataError
from holdfast.core.records import Decision
from holdfast.data.raw import BATCH_CHARACTERS, BATCH_ROWS, Batch
from holdfast.data.readers import READERS, Reader
from holdfast.data.readers.text import open_lines

_CELL_LIMIT = 1 << 28
_OTHERS = ";\t|"
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}


def read_csv(path: Path, encoding: str | None) -> Iterator[Batch]:
    """Rows of a file with commas; or semicolons, tabs, bars, when its header has no comma."""
    delimiter, decisions = _delimiter(path, encoding)
    return _read(path, encoding, delimiter, csv.QUOTE_MINIMAL, decisions)


def read_tsv(path: Path, encoding: str | None) -> Iterator[Batch]:
    """Rows of a file with tabs. Quotes are read as in CSV when the whole file obeys those rules,
    else as plain characters (both habits are common in TSV), which is said."""
    try:
        for _ in _read(path, encoding, "\t", csv.QUOTE_MINIMAL, ()):
            pass
    except DataError as error:
        if "quotation mark" not in error.rule and "cells" not in error.rule:
            raise
        because = f"{error.what} {error.rule} if quotes are special"
        decision = Decision("quotes in the TSV", "plain characters", because)
        return _read(path, encoding, "\t", csv.QUOTE_NONE, (decision,))
    return _read(path, encoding, "\t", csv.QUOTE_MINIMAL, ())


def _delimiter(path: Path, encoding: str | None) -> tuple[str, tuple[Decision, ...]]:
    with open_lines(path, encoding) as lines:
        header = next((line for line in lines if line.strip()), "")
    if "," in header or not any(mark in header for mark in _OTHERS):
        return ",", ()
    delimiter = max(_OTHERS, key=header.count)
    because = f"the header has {header.count(delimiter)} of these and no comma"
    return delimiter, (Decision("delimiter", _NAMES[delimiter], because),)


def _read(
    path: Path, encoding: str | None, delimiter: str, quoting: Any, decisions: tuple[Decision, ...]
) -> Iterator[Batch]:
    with open_lines(path, encoding) as lines, _long_cells():
        rows = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
        records = _records(path, rows)
        names = _header(path, next(records, None))
        yield Batch({name: pa.array([], pa.string()) for name in names}, {}, decisions)
        yield from _batches(path, rows, records, names)


def _records(path: Path, rows: Any) -> Iterator[list[str]]:
    """The reader's rows without blank lines; its complaints with the line where the row began."""
    while True:
        began = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise _malformed(path, began, rows.line_num, str(error)) from error
        if row:
            yield row


def _malformed(path: Path, began: int, ended: int, message: str) -> DataError:
    if "unexpected end" in message or "field larger" in message:
        rule = "opens a quotation mark that never closes"
        remedy = "Close it, or write a quotation mark inside a quoted cell twice."
        return DataError(f"{path}, line {began}", rule, None, remedy)
    if "expected after" in message:
        rule = "has text after the closing quotation mark of a cell"
        remedy = "Put the whole cell in quotation marks and write those inside it twice."
        return DataError(f"{path}, line {ended}", rule, None, remedy)
    return DataError(f"{path}, line {ended}", f"cannot be read: {message}")


def _header(path: Path, cells: list[str] | None) -> list[str]:
    names = [cell.strip() for cell in cells or ()]
    if not any(names):
        raise DataError(str(path), "is empty", None, "It needs a header line and rows below it.")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(
            str(path), "has columns of the same name", ", ".join(map(repr, repeated)),
            "Give each column of the header a name of its own.",
        )  # fmt: skip
    return names


def _batches(
    path: Path, rows: Any, records: Iterator[list[str]], names: list[str]
) -> Iterator[Batch]:
    width, cells, characters = len(names), [], 0
    for record in records:
        if len(record) != width:
            raise _ragged(path, rows.line_num, record, width)
        cells.append(record)
        characters += len(record[0]) if width == 1 else sum(map(len, record))
        if len(cells) == BATCH_ROWS or characters > BATCH_CHARACTERS:
            yield _batch(names, cells)
            cells, characters = [], 0
    if cells:
        yield _batch(names, cells)


def _batch(names: list[str], cells: list[list[str]]) -> Batch:
    columns = zip(names, zip(*cells, strict=True), strict=True)
    return Batch({name: pa.array(values, pa.string()) for name, values in columns})


def _ragged(path: Path, line: int, record: list[str], width: int) -> DataError:
    return DataError(
        f"{path}, line {line}", f"has {len(record)} cells where the header names {width}",
        record[-1] if len(record) > width else record[0],
        "Put a cell that holds the delimiter in quotation marks; give every row the same cells.",
    )  # fmt: skip


@contextlib.contextmanager
def _long_cells() -> Iterator[None]:
    before = csv.field_size_limit(_CELL_LIMIT)
    try:
        yield
    finally:
        csv.field_size_limit(before)


READERS.add("csv", Reader(".csv", read_csv))
READERS.add("tsv", Reader(".tsv", read_tsv))
