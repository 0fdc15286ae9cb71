"""JSON lines (one object per line), or one JSON document.

In JSON lines, blank lines are not rows, and an omitted key is a missing value. A document is a list
of objects, an object of columns, or an object that contains a list. A list is read object by
object, so that memory stays bounded; an object is read at once. A document that turns out to hold
one object per line is read as JSON lines, which is logged as a decision.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.core.decisions import notify
from holdfast.core.errors import DataError
from holdfast.core.records import Decision
from holdfast.data.cells import batch_of_objects
from holdfast.data.limits import DOCUMENT_VALUES, check_columns, check_row, current_limits
from holdfast.data.raw import BATCH_ROWS, Batch, batch_rows, batched
from holdfast.data.readers import READERS, Reader
from holdfast.data.readers.text import join_lines, open_lines

SHOWN = 200


def read_jsonl(path: Path, encoding: str | None) -> Iterator[Batch]:
    """Rows of a file with one JSON object per line."""
    with open_lines(path, encoding) as lines:
        yield from batches(path, lines)


def batches(path: Path, lines: Iterator[str]) -> Iterator[Batch]:
    """Objects, one per line, gathered into batches; an error names its line."""
    columns, has_rows = ColumnNames(path), False
    objects = (
        (columns.register(parse_object(f"{path}, line {number}", line)), len(line))
        for number, line in enumerate(lines, 1)
        if line.strip()
    )
    for lot in batched(objects, lambda: columns.rows):
        has_rows = True
        yield batch_of_objects(lot, str(path))
    if not has_rows:
        raise DataError(str(path), "is empty", None, "Write one JSON object per line.")


def parse_object(where: str, line: str) -> dict[str, Any]:
    """The object on this line."""
    try:
        value = _DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        rule = f"is not JSON: {parse_error_reason(error)}"
        remedy = "Write one JSON object per line."
        raise DataError(where, rule, line.strip()[:SHOWN], remedy) from error
    return check_object(where, value)


def parse_error_reason(error: Exception) -> str:
    """The parser's error in a few words."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    message: str = getattr(error, "msg", None) or str(error)
    # Python's own message advises to change the interpreter's limit.
    long = "integer string conversion" in message
    return "an integer has more than 4,300 digits; write it as a text" if long else message


class ColumnNames:
    """The columns seen so far; the object that exceeds the limit is refused."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: dict[str, None] = {}
        self.rows = BATCH_ROWS

    def register(self, value: dict[str, object]) -> dict[str, object]:
        """Return ``value`` and count its names among the columns; raises ``DataError`` where they
        become more than ``data.limits.columns``."""
        if not value.keys() <= self._names.keys():
            self._names |= dict.fromkeys(value)
            check_columns(str(self._path), tuple(self._names))
            self.rows = batch_rows(len(self._names))
        return value


def check_object(where: str, value: object) -> dict[str, Any]:
    """``value``, if it is an object whose texts can be stored as UTF-8."""
    if not isinstance(value, dict):
        remedy = 'Write each row as an object such as {"text": "…", "label": "…"}.'
        raise DataError(where, "is not an object with named columns", value, remedy)
    for name, cell in value.items():
        if not name.isascii():
            _refuse_surrogates(where, name, name)
        if isinstance(cell, str) and not cell.isascii():
            _refuse_surrogates(where, name, cell)
    return value


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, Any]:
    """The object of these pairs; refuses a repeated name, where ``json`` keeps the last."""
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"the name {twice[:SHOWN]!r} is repeated")
    return value


def _refuse_surrogates(where: str, name: str, cell: str) -> None:
    try:
        cell.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}, column {name!r}",
            "holds half of a surrogate pair, which is not a character",
            ascii(cell[error.start : error.end]),
            "Write the complete character, or remove it.",
        ) from error


# Made once: ``json.loads`` would make one per line.
_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys)

READERS.add("jsonl", Reader(".jsonl", read_jsonl))


_SHAPES = 'Write a list of objects: [{"text": "…", "label": "…"}, …], or columns: {"text": […], …}.'
# JSON's own white space, narrower than Python's.
_SPACE = " \t\r\n"


def read_json(path: Path, encoding: str | None) -> Iterator[Batch]:
    """Rows of a JSON document."""
    # A document may be one line of any size: it is read in pieces, not in lines.
    with open_lines(path, encoding, pieces=True) as pieces:
        first = next((piece for piece in pieces if piece.strip()), None)
        if first is None:
            raise DataError(str(path), "is empty", None, _SHAPES)
        if first.lstrip(_SPACE).startswith("["):
            yield from _read_list(path, _Cursor(path, itertools.chain([first], pieces)))
            return
        line = _first_line(first, pieces)
        if not _is_object(line):
            yield from _read_document(path, "".join(itertools.chain([line], pieces)))
            return
        lines = join_lines(path, pieces)
        second = next((line for line in lines if line.strip()), None)
        if second is None:
            yield from _read_document(path, line)
            return
        notify(Decision("format", "JSON lines", "the file holds one object per line"))
        yield from batches(path, itertools.chain([line, second], lines))


def _first_line(first: str, pieces: Iterator[str]) -> str:
    """The complete first line; of one longer than a row may be, its beginning."""
    line = [first]
    while not line[-1].endswith(("\n", "\r")) and sum(map(len, line)) <= current_limits().cell:
        piece = next(pieces, "")
        if not piece:
            break
        line.append(piece)
    return "".join(line)


def _read_list(path: Path, cursor: _Cursor) -> Iterator[Batch]:
    cursor.expect("[")
    objects: list[dict[str, Any]] = []
    items_read, columns = 0, ColumnNames(path)
    while not cursor.closes("]", first=items_read == 0):
        objects.append(columns.register(check_object(f"{path}, item {items_read}", cursor.value())))
        items_read += 1
        if len(objects) >= columns.rows:
            yield batch_of_objects(objects, str(path))
            objects = []
    cursor.expect_end()
    if not items_read:
        raise DataError(str(path), "is an empty list", None, _SHAPES)
    yield batch_of_objects(objects, str(path))


class _Cursor:
    """Parses JSON text that is read piece by piece."""

    def __init__(self, path: Path, lines: Iterator[str]) -> None:
        self._path = path
        self._lines = lines
        self._text, self._at, self._line, self._ended = "", 0, 1, False

    def expect(self, mark: str) -> None:
        if self._peek() != mark:
            raise self._error(f"has {self._peek() or 'the end'!r} where {mark!r} is expected")
        self._at += 1

    def expect_end(self) -> None:
        if self._peek():
            raise self._error("has content after the end of its list")

    def closes(self, mark: str, first: bool) -> bool:
        """Whether the list ends here; else consume the comma before its next item."""
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
                value, self._at = _DECODER.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if self._ended or not isinstance(error, json.JSONDecodeError):
                    raise self._error(f"is not JSON: {parse_error_reason(error)}") from error
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
        # Read twice the unread length, so that a long value costs linear time.
        rest = self._text[self._at :]
        self._line += self._text.count("\n", 0, self._at)
        pieces, characters_left = [rest], max(1 << 16, len(rest))
        while characters_left > 0 and not self._ended:
            line = next(self._lines, "")
            pieces.append(line)
            characters_left -= len(line)
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


def _read_document(path: Path, text: str) -> Iterator[Batch]:
    if text.count("[") + text.count("{") > DOCUMENT_VALUES:
        rule = f"holds more than {DOCUMENT_VALUES:,} lists and objects in one document"
        remedy = "Write its rows as JSON lines or as one list; both are read row by row."
        raise DataError(str(path), rule, None, remedy)
    try:
        value = json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(
            f"{path}{line}", f"is not JSON: {parse_error_reason(error)}", None, _SHAPES
        ) from error
    columns = ColumnNames(path)
    # Lazily: a number in a column takes two bytes, and a row as an object two hundred.
    objects = (columns.register(item) for item in _objects(path, value))
    while batch := list(itertools.islice(objects, columns.rows)):
        yield batch_of_objects(batch, str(path))


def _objects(path: Path, value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        lists = (item for item in value.values() if isinstance(item, list))
        rows = [item for item in lists if item and isinstance(item[0], dict)]
        if len(rows) == 1:
            return (check_object(f"{path}, item {n}", item) for n, item in enumerate(rows[0]))
        # Columns of rows by index, {"text": {"0": "…"}, …}, as pandas writes them.
        objects = bool(value) and all(isinstance(item, dict) for item in value.values())
        if objects and len({tuple(item) for item in value.values()}) == 1:
            return _from_columns(path, {name: list(item.values()) for name, item in value.items()})
        if value and all(isinstance(item, list) for item in value.values()):
            return _from_columns(path, value)
        if value and not any(isinstance(item, (list, dict)) for item in value.values()):
            return iter([check_object(str(path), value)])
    raise DataError(str(path), "is not a table", None, _SHAPES)


def _from_columns(path: Path, value: Mapping[str, Sequence[object]]) -> Iterator[dict[str, Any]]:
    lengths = {name: len(column) for name, column in value.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(str(path), "has columns of different lengths", lengths, _SHAPES)
    if not next(iter(lengths.values())):
        raise DataError(str(path), "has columns but no rows", None, _SHAPES)
    rows = zip(*value.values(), strict=True)
    return (check_object(str(path), dict(zip(value, row, strict=True))) for row in rows)


READERS.add("json", Reader(".json", read_json))
