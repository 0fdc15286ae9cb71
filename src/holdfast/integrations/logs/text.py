"""Text files of logs: the first lines, tables with a header, objects one a line, documents."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holdfast.core.errors import DataError
from holdfast.integrations.logs.table import not_a_log

HEAD_BYTES = 65_536


def head(path: Path, suffixes: tuple[str, ...] = ()) -> str | None:
    """The first 64 KiB as text; ``None`` for a folder, another suffix, or bytes."""
    if not path.is_file() or (suffixes and path.suffix.lower() not in suffixes):
        return None
    with path.open("rb") as file:
        start = file.read(HEAD_BYTES)
    if b"\0" in start:
        return None
    return start.decode("utf-8-sig", errors="replace").lstrip()


def header(path: Path) -> list[str]:
    """The names in the first line of a table; empty where the file is no table."""
    start = head(path, (".csv", ".tsv", ".txt", ".log"))
    if not start or start[0] in "{[":
        return []
    line = start.splitlines()[0]
    return [cell.strip() for cell in next(csv.reader([line], delimiter=_delimiter(line)), [])]


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a table with a header; a cell that a short row lacks is absent, and a header
    that stands again in the middle (a run begun again into the same file) is no row."""
    lines = _text(path).splitlines()
    start = next((i for i, line in enumerate(lines) if line.strip()), 0)
    delimiter = _delimiter(lines[start]) if lines else ","
    rows = csv.reader(lines[start:], delimiter=delimiter)
    try:
        names = [cell.strip() for cell in next(rows, [])]
        found = [dict(zip(names, row, strict=False)) for row in rows if row]
    except csv.Error as error:
        raise not_a_log(str(path), f"cannot be read as a table: {error}") from error
    return [row for row in found if [v.strip() for v in row.values()] != names[: len(row)]]


def objects(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file with one a line; what a kill left of the last line is not one."""
    # Not ``splitlines``: a string in JSON may hold U+2028, which ends no line.
    lines = [line for line in _text(path).split("\n") if line.strip()]
    for place, line in enumerate(lines):
        try:
            value = json.loads(line)
        except ValueError as error:
            if place and place == len(lines) - 1:
                return
            raise DataError(
                f"{path}, line {place + 1}", "is not JSON", line[:80], "Write an object a line."
            ) from error
        if not isinstance(value, dict):
            raise not_a_log(f"{path}, line {place + 1}", "is not an object", value)
        yield value


def document(path: Path) -> Any:
    """A whole JSON document; ``NaN`` and ``Infinity`` are numbers, as Python writes them."""
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise not_a_log(str(path), f"is not JSON: {error}") from error


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one, their names joined with ``/``."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        found |= flat(item, f"{name}/") if isinstance(item, dict) else {name: item}
    return found


def _delimiter(line: str) -> str:
    return max(",;\t|", key=line.count) if any(mark in line for mark in ",;\t|") else ","


def _text(path: Path) -> str:
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_a_log(str(path), "is not text") from error
    if "\0" in text:
        raise not_a_log(str(path), "is not text")
    return text
