"""JSON lines: one object a line. Blank lines are not rows; a key that is left out is missing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holdfast.core.errors import DataError
from holdfast.data.limits import check_columns
from holdfast.data.raw import BATCH_CHARACTERS, BATCH_ROWS, Batch, batch_rows
from holdfast.data.readers import READERS, Reader
from holdfast.data.readers.text import open_lines
from holdfast.data.readers.values import batch_of_objects

SHOWN = 200


def read_jsonl(path: Path, encoding: str | None) -> Iterator[Batch]:
    """Rows of a file with one JSON object a line."""
    with open_lines(path, encoding) as lines:
        yield from batches(path, lines)


def batches(path: Path, lines: Iterator[str]) -> Iterator[Batch]:
    """Objects, one a line, gathered into batches; an error names its line."""
    objects: list[dict[str, Any]] = []
    characters, seen, columns = 0, False, KeyNames(path)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        objects.append(columns.of(parse_object(f"{path}, line {number}", line)))
        characters, seen = characters + len(line), True
        if len(objects) >= columns.rows or characters > BATCH_CHARACTERS:
            yield batch_of_objects(objects, str(path))
            objects, characters = [], 0
    if objects:
        yield batch_of_objects(objects, str(path))
    if not seen:
        raise DataError(str(path), "is empty", None, "It needs one JSON object a line.")


def parse_object(where: str, line: str) -> dict[str, Any]:
    """The object that this line holds."""
    try:
        value = _DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            where,
            f"is not JSON: {why(error)}",
            line.strip()[:SHOWN],
            "Write one JSON object a line.",
        ) from error
    return check_object(where, value)


def why(error: Exception) -> str:
    """What the parser has against a text, in a few words."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    message: str = getattr(error, "msg", None) or str(error)
    # Python's own sentence advises to change the interpreter.
    long = "integer string conversion" in message
    return "a whole number has more than 4,300 digits; write it as a text" if long else message


class KeyNames:
    """The columns seen so far; more than may be are refused where the first of them stands."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: dict[str, None] = {}
        self.rows = BATCH_ROWS

    def of(self, value: dict[str, object]) -> dict[str, object]:
        """``value`` itself, its names counted among the columns; raises ``DataError`` where they
        become more than ``data.limits.columns``."""
        if not value.keys() <= self._names.keys():
            self._names |= dict.fromkeys(value)
            check_columns(str(self._path), tuple(self._names))
            self.rows = batch_rows(len(self._names))
        return value


def check_object(where: str, value: object) -> dict[str, Any]:
    """``value``, if it is an object whose texts can be stored as UTF-8."""
    if not isinstance(value, dict):
        remedy = 'A row is an object such as {"text": "…", "label": "…"}.'
        raise DataError(where, "is not an object with named columns", value, remedy)
    for name, cell in value.items():
        if not name.isascii():
            _refuse_surrogates(where, name, name)
        if isinstance(cell, str) and not cell.isascii():
            _refuse_surrogates(where, name, cell)
    return value


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, Any]:
    """The object of these pairs; a repeated name is refused, where ``json`` keeps the last."""
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"the name {twice[:SHOWN]!r} stands twice")
    return value


def _refuse_surrogates(where: str, name: str, cell: str) -> None:
    try:
        cell.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}, column {name!r}",
            "holds half of a surrogate pair, which is no character",
            ascii(cell[error.start : error.end]),
            "Write the whole character, or leave it out.",
        ) from error


# Made once: ``json.loads`` would make one a line.
_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys)

READERS.add("jsonl", Reader(".jsonl", read_jsonl))
