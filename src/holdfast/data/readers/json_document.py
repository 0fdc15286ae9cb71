"""One JSON document: a list of objects, an object of columns, or an object that wraps a list.

A list is read object by object, so that memory stays bounded; an object is read whole. A file that
turns out to hold one object a line is read as JSON lines, which is said.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.core.errors import DataError
from holdfast.core.records import Decision
from holdfast.data.limits import DOCUMENT_VALUES, check_row, limits
from holdfast.data.raw import Batch
from holdfast.data.readers import READERS, Reader
from holdfast.data.readers.jsonl import KeyNames, batches, check_object, unique_keys, why
from holdfast.data.readers.text import open_lines, whole_lines
from holdfast.data.readers.values import batch_of_objects

_SHAPES = 'Write a list of objects: [{"text": "…", "label": "…"}, …], or columns: {"text": […], …}.'
# JSON's own white space, narrower than Python's.
_SPACE = " \t\r\n"


def read_json(path: Path, encoding: str | None) -> Iterator[Batch]:
    """Rows of a JSON document."""
    # A document may be one line, whatever its size: it is read in pieces, not in lines.
    with open_lines(path, encoding, pieces=True) as pieces:
        first = next((piece for piece in pieces if piece.strip()), None)
        if first is None:
            raise DataError(str(path), "is empty", None, _SHAPES)
        if first.lstrip(_SPACE).startswith("["):
            yield from _list(path, _Cursor(path, itertools.chain([first], pieces)))
            return
        line = _first_line(first, pieces)
        if _is_object(line):
            yield from _lines_or_one(path, line, whole_lines(path, pieces))
        else:
            yield from _whole(path, "".join(itertools.chain([line], pieces)))


def _first_line(first: str, pieces: Iterator[str]) -> str:
    """The first line whole; of one longer than a row may be, so much as shows it."""
    line = [first]
    while not line[-1].endswith(("\n", "\r")) and sum(map(len, line)) <= limits().cell:
        piece = next(pieces, "")
        if not piece:
            break
        line.append(piece)
    return "".join(line)


def _list(path: Path, cursor: _Cursor) -> Iterator[Batch]:
    cursor.expect("[")
    objects: list[dict[str, Any]] = []
    seen, columns = 0, KeyNames(path)
    while not cursor.closes("]", first=seen == 0):
        objects.append(columns.of(check_object(f"{path}, item {seen}", cursor.value())))
        seen += 1
        if len(objects) >= columns.rows:
            yield batch_of_objects(objects, str(path))
            objects = []
    cursor.expect_end()
    if not seen:
        raise DataError(str(path), "is an empty list", None, _SHAPES)
    yield batch_of_objects(objects, str(path))


class _Cursor:
    """Walks through JSON text that is read piece by piece."""

    def __init__(self, path: Path, lines: Iterator[str]) -> None:
        self._path = path
        self._lines = lines
        self._decoder = json.JSONDecoder(object_pairs_hook=unique_keys)
        self._text, self._at, self._line, self._ended = "", 0, 1, False

    def expect(self, mark: str) -> None:
        if self._peek() != mark:
            raise self._error(f"has {self._peek() or 'the end'!r} where {mark!r} should be")
        self._at += 1

    def expect_end(self) -> None:
        if self._peek():
            raise self._error("goes on after the end of its list")

    def closes(self, mark: str, first: bool) -> bool:
        """Whether the list ends here; else the comma before its next item is passed."""
        if self._peek() == mark:
            self._at += 1
            return True
        if not first:
            self.expect(",")
        return False

    def value(self) -> Any:
        self._peek()
        while True:
            try:
                value, self._at = self._decoder.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if self._ended or not isinstance(error, json.JSONDecodeError):
                    raise self._error(f"is not JSON: {why(error)}") from error
                check_row(self._where(), len(self._text) - self._at)
                self._more()
            else:
                return value

    def _peek(self) -> str:
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._more()

    def _more(self) -> None:
        # Twice what is unread, so that a long value costs linear time.
        rest = self._text[self._at :]
        self._line += self._text.count("\n", 0, self._at)
        pieces, wanted = [rest], max(1 << 16, len(rest))
        while wanted > 0 and not self._ended:
            line = next(self._lines, "")
            pieces.append(line)
            wanted -= len(line)
            self._ended = not line
        self._text, self._at = "".join(pieces), 0

    def _where(self) -> str:
        return f"{self._path}, line {self._line + self._text.count(chr(10), 0, self._at)}"

    def _error(self, rule: str) -> DataError:
        return DataError(self._where(), rule, None, _SHAPES)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _lines_or_one(path: Path, first: str, lines: Iterator[str]) -> Iterator[Batch]:
    second = next((line for line in lines if line.strip()), None)
    if second is None:
        yield from _whole(path, first)
        return
    decision = Decision("format", "JSON lines", "the file holds one object a line")
    yield Batch({}, {}, (decision,))
    yield from batches(path, itertools.chain([first, second], lines))


def _whole(path: Path, text: str) -> Iterator[Batch]:
    if text.count("[") + text.count("{") > DOCUMENT_VALUES:
        raise DataError(
            str(path),
            f"holds more than {DOCUMENT_VALUES:,} lists and objects in one document",
            None,
            "Write its rows as JSON lines, or as one list, which are read row by row.",
        )
    try:
        value = json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{path}{line}", f"is not JSON: {why(error)}", None, _SHAPES) from error
    columns = KeyNames(path)
    # Lazily: a column of numbers is two bytes a row, and a row as an object two hundred.
    objects = (columns.of(item) for item in _objects(path, value))
    while batch := list(itertools.islice(objects, columns.rows)):
        yield batch_of_objects(batch, str(path))


def _objects(path: Path, value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        rows = [item for item in value.values() if _is_rows(item)]
        if len(rows) == 1:
            return (check_object(f"{path}, item {n}", item) for n, item in enumerate(rows[0]))
        # Columns of rows by index, {"text": {"0": "…"}, …}, as pandas writes them.
        if not value or not all(isinstance(item, dict) for item in value.values()):
            indexed = False
        else:
            indexed = len({tuple(item) for item in value.values()}) == 1
        if indexed:
            return _from_columns(path, {name: list(item.values()) for name, item in value.items()})
        if value and all(isinstance(item, list) for item in value.values()):
            return _from_columns(path, value)
        if value and not any(isinstance(item, (list, dict)) for item in value.values()):
            return iter([check_object(str(path), value)])
    raise DataError(str(path), "is not a table", None, _SHAPES)


def _is_rows(item: object) -> bool:
    return isinstance(item, list) and bool(item) and isinstance(item[0], dict)


def _from_columns(path: Path, value: Mapping[str, Sequence[object]]) -> Iterator[dict[str, Any]]:
    lengths = {name: len(column) for name, column in value.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(str(path), "has columns of different lengths", lengths, _SHAPES)
    if not next(iter(lengths.values())):
        raise DataError(str(path), "has columns but no rows", None, _SHAPES)
    rows = zip(*value.values(), strict=True)
    return (check_object(str(path), dict(zip(value, row, strict=True))) for row in rows)


READERS.add("json", Reader(".json", read_json))
