"""CSV and TSV, strictly by the rules of RFC 4180.

Quoted cells may hold delimiters, doubled quotes and line ends. Blank lines are not rows. No value
is converted to a number or a missing value here: ``007``, ``NA`` and ``1e5`` are unchanged.
Differs from the lenient readers of pandas and Polars in that a malformed row is never repaired.

Source: Y. Shafranovich, RFC 4180, 2005.
"""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from holdfast.core.decisions import notify
from holdfast.core.errors import DataError
from holdfast.core.records import Decision
from holdfast.data.limits import check_row, current_limits
from holdfast.data.raw import Batch, batch_rows, batched, check_column_names
from holdfast.data.readers import READERS, Reader
from holdfast.data.readers.text import open_lines

if TYPE_CHECKING:
    import _csv

# Parts of the errors that an unbalanced quotation mark causes: it never closes, one cell holds the
# rest of a row or of the file, or a row has another number of cells than the header.
_UNQUOTED = ("quotation mark", "in one row", "cells")
_OTHERS = ";\t|"
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}


def read_csv(path: Path, encoding: str | None) -> Iterator[Batch]:
    """Rows of a file with commas; or semicolons, tabs, bars, when its header has no comma."""
    with open_lines(path, encoding) as lines:
        header = next((line for line in lines if line.strip()), "")
    delimiter = ","
    if "," not in header and any(mark in header for mark in _OTHERS):
        delimiter = max(_OTHERS, key=header.count)
        because = f"the header has {header.count(delimiter)} of them and no comma"
        notify(Decision("delimiter", _NAMES[delimiter], because))
    return _read(path, encoding, delimiter, csv.QUOTE_MINIMAL)


def read_tsv(path: Path, encoding: str | None) -> Iterator[Batch]:
    """Rows of a file with tabs. Quotes are read as in CSV when the full file follows those rules,
    else as plain characters (both are common in TSV), which is logged as a decision."""
    try:
        for _ in _read(path, encoding, "\t", csv.QUOTE_MINIMAL):
            pass
    except DataError as error:
        if not any(sign in error.rule for sign in _UNQUOTED):
            raise
        because = f"as special characters they lead to an error: {error.what} {error.rule}"
        notify(Decision("quotes in the TSV", "plain characters", because))
        return _read(path, encoding, "\t", csv.QUOTE_NONE)
    return _read(path, encoding, "\t", csv.QUOTE_MINIMAL)


def _read(
    path: Path, encoding: str | None, delimiter: str, quoting: Literal[0, 1, 2, 3]
) -> Iterator[Batch]:
    with open_lines(path, encoding) as lines, contextlib.ExitStack() as stack:
        # One more than a row may have, so that the error names the limit on rows.
        stack.callback(csv.field_size_limit, csv.field_size_limit(current_limits().cell + 1))
        counted = _Counted(path, lines)
        # A reader that is not strict would silently read ``"a"b`` as ``ab``.
        rows = csv.reader(counted, delimiter=delimiter, quoting=quoting, strict=True)
        records = _records(path, rows, counted)
        names = _header(path, next(records, None))
        # So that the columns are known even for a file without rows.
        yield Batch({name: pa.array([], pa.string()) for name in names})
        for lot in batched(_cells(path, rows, records, len(names)), lambda: batch_rows(len(names))):
            columns = zip(names, zip(*lot, strict=True), strict=True)
            yield Batch({name: pa.array(values, pa.string()) for name, values in columns})


class _Counted:
    """Lines, with a limit on the length of one row: otherwise a quotation mark that never closes
    would load the rest of the file into memory."""

    def __init__(self, path: Path, lines: Iterator[str]) -> None:
        self._path, self._lines = path, lines
        self._began, self._characters = 0, 0

    def begin(self, line: int) -> None:
        """Note that a row begins on this line."""
        self._began, self._characters = line, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._characters += len(line)
        if self._characters > current_limits().cell:
            hint = "Close its quotation mark; inside a quoted cell, write a quotation mark "
            check_row(f"{self._path}, line {self._began}", self._characters, f"{hint}twice.")
        return line


def _records(path: Path, rows: _csv.Reader, lines: _Counted) -> Iterator[list[str]]:
    """The reader's rows without blank lines; an error names the line where its row began."""
    while True:
        began = rows.line_num + 1
        lines.begin(began)
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
        remedy = "Close it. Inside a quoted cell, write a quotation mark twice."
        return DataError(f"{path}, line {began}", rule, None, remedy)
    if "expected after" in message:
        rule = "has text after the closing quotation mark of a cell"
        remedy = "Put the whole cell in quotation marks, and write those inside it twice."
        return DataError(f"{path}, line {ended}", rule, None, remedy)
    return DataError(f"{path}, line {ended}", f"cannot be read: {message}")


def _header(path: Path, cells: list[str] | None) -> list[str]:
    names = [cell.strip() for cell in cells or ()]
    if cells and re.fullmatch(r"sep=.?", ",".join(cells).strip()):
        rule = "begins with a line that names the delimiter, which only Excel reads"
        raise DataError(
            str(path), rule, names[0], "Delete this line: Holdfast detects the delimiter."
        )
    if not any(names):
        raise DataError(str(path), "is empty", None, "Add a header line and rows below it.")
    check_column_names(str(path), names)
    return names


def _cells(
    path: Path, rows: _csv.Reader, records: Iterator[list[str]], width: int
) -> Iterator[tuple[list[str], int]]:
    """The records, each with its characters; one with more or fewer cells is refused."""
    for record in records:
        if len(record) != width:
            rule = f"has {len(record)} cells, but the header names {width}"
            title = " If the first line is a title, remove it." if width == 1 else ""
            remedy = (
                "Put a cell that contains the delimiter in quotation marks, and give every row the "
                f"same number of cells.{title}"
            )
            cell = record[-1] if len(record) > width else record[0]
            raise DataError(f"{path}, line {rows.line_num}", rule, cell, remedy)
        yield record, len(record[0]) if width == 1 else sum(map(len, record))


READERS.add("csv", Reader(".csv", read_csv))
READERS.add("tsv", Reader(".tsv", read_tsv))
