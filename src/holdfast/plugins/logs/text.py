"""Text files of logs: first lines, tables with a header, one object a line, documents.

Tables and objects are read line by line, so that a log of a million rows needs no more memory than
its numbers. A document is one value and has a maximum size.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any

from holdfast.core.errors import DataError
from holdfast.plugins.logs import not_a_log

HEAD_BYTES = 65_536
# A million characters hold 50,000 columns; csv itself refuses a cell of more than 131,072.
MAX_LINE_LENGTH = 4_000_000
# As Python values a document takes up to 24 times its size: 32 MB, some 200,000 entries of the
# Trainer, stay below 1 GB. A CSV or JSONL may be of any size.
MAX_DOCUMENT_BYTES = 32_000_000
MAX_DEPTH = 40  # objects inside each other; trackers nest four
MAX_NAME_LENGTH = 2000  # of a column, its outer names included
MAX_FILES = 100_000  # searched below a folder
MAX_FOLDER_DEPTH = 12


def read_head(path: Path, suffixes: tuple[str, ...] = ()) -> str | None:
    """The first 64 KiB as text; ``None`` for a folder, another suffix, or binary content."""
    if not path.is_file() or (suffixes and path.suffix.lower() not in suffixes):
        return None
    with path.open("rb") as file:
        start = file.read(HEAD_BYTES)
    # UTF-16 text is refused here too: no trainer writes it.
    if b"\0" in start:
        return None
    # The cut may be inside a character.
    return start.decode("utf-8-sig", errors="replace").lstrip()


def first_line_holds(path: Path, mark: str) -> bool:
    """Whether the first line of a JSON-lines file contains ``mark``."""
    start = read_head(path, (".jsonl",))
    return bool(start) and mark in str(start).splitlines()[0]


def read_header(path: Path) -> list[str]:
    """The names in the first line of a table; empty where the file is not a table."""
    start = read_head(path, (".csv", ".tsv", ".txt", ".log"))
    if not start or start[0] in "{[":
        return []
    line = start.splitlines()[0]
    try:
        names = next(csv.reader([line], delimiter=_delimiter(line)), [])
    except csv.Error:
        return []
    return [cell.strip() for cell in names]


def read_table(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a table with a header.

    A cell that a short row lacks is absent; a header that repeats in the middle (a run restarted
    into the same file) is skipped.
    """
    with _open(path) as file:
        lines = _lines(path, file)
        first = next((line for line in lines if line.strip()), None)
        if first is None:
            return
        rows = csv.reader(chain([first], lines), delimiter=_delimiter(first.splitlines()[0]))
        try:
            names = [cell.strip() for cell in next(rows, [])]
            for cells in rows:
                if cells and [cell.strip() for cell in cells] != names[: len(cells)]:
                    yield dict(zip(names, cells, strict=False))
        except csv.Error as error:
            raise not_a_log(str(path), f"cannot be read as a table: {error}") from error


def read_objects(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file with one a line; an incomplete last line, left by a killed process, is
    skipped.
    """
    with _open(path, "\n") as file:
        lines = ((place, line) for place, line in enumerate(_lines(path, file), 1) if line.strip())
        any_read = False
        for place, line in lines:
            try:
                value = json.loads(line)
            except ValueError as error:
                if any_read and next(lines, None) is None:
                    return
                place_words, remedy = f"{path}, line {place}", "Write one object a line."
                raise DataError(place_words, "is not JSON", line[:80], remedy) from error
            if not isinstance(value, dict):
                raise not_a_log(f"{path}, line {place}", "is not an object", value)
            any_read = True
            yield value


def read_document(path: Path) -> Any:
    """A full JSON document; ``NaN`` and ``Infinity`` are numbers, as Python writes them."""
    size = path.stat().st_size
    if size > MAX_DOCUMENT_BYTES:
        rule = (
            f"is one JSON document of more than {MAX_DOCUMENT_BYTES // 10**6} MB, which "
            "Holdfast reads "
        )
        rule += "at once; as CSV or as JSONL (one object a line) it may have any size"
        raise not_a_log(str(path), rule, size)
    try:
        with _open(path) as file:
            return json.loads(file.read())
    except UnicodeDecodeError as error:
        raise not_a_log(str(path), "is not text") from error
    except ValueError as error:
        raise not_a_log(str(path), f"is not JSON: {error}") from error


def flatten(value: dict[str, Any], log_name: str) -> dict[str, Any]:
    """Nested objects as one, their names joined with ``/``.

    Raises ``DataError`` for objects nested deeper than any tracker writes.
    """
    flattened: dict[str, Any] = {}
    stack: list[tuple[str, Iterator[tuple[str, Any]]]] = [("", iter(value.items()))]
    while stack:
        prefix, items = stack[-1]
        for key, item in items:
            name = f"{prefix}{key}"
            if len(name) > MAX_NAME_LENGTH:
                raise not_a_log(
                    log_name, f"has a name of more than {MAX_NAME_LENGTH:,} characters", name
                )
            if isinstance(item, dict):
                if len(stack) >= MAX_DEPTH:
                    raise not_a_log(log_name, f"is nested beyond {MAX_DEPTH} levels", name)
                stack.append((f"{name}/", iter(item.items())))
                break
            flattened[name] = item
        else:
            stack.pop()
    return flattened


def files_below(folder: Path, pattern: str) -> list[Path]:
    """The files in ``folder`` and below it whose name matches ``pattern``, in order; links to
    folders are not followed.

    Raises ``DataError`` for a folder with too many files to search.
    """
    files, folders, n_seen = [], [(os.fspath(folder), 0)], 0
    while folders:
        current, depth = folders.pop()
        with os.scandir(current) as entries:
            for entry in entries:
                n_seen += 1
                if n_seen > MAX_FILES:
                    rule = f"contains more than {MAX_FILES:,} files"
                    remedy = "Name the log itself, or the folder of one run."
                    raise DataError(str(folder), rule, None, remedy)
                if entry.is_dir(follow_symlinks=False):
                    if depth < MAX_FOLDER_DEPTH:
                        folders.append((entry.path, depth + 1))
                elif fnmatch(entry.name, pattern) and entry.is_file():
                    files.append(Path(entry.path))
    return sorted(files)


def several_runs(
    path: Path, names: Sequence[str], remedy: str = "Name the folder of one of them."
) -> DataError:
    """The error for a folder with more than one run: Holdfast does not guess."""
    return DataError(str(path), "holds several runs", ", ".join(names[:12]), remedy)


def _open(path: Path, newline: str = "") -> IO[str]:
    """Open a regular file as text: a pipe could block, and a device has no end."""
    if not path.is_file():
        raise not_a_log(str(path), "is not a regular file")
    return path.open(encoding="utf-8-sig", newline=newline)


def _lines(path: Path, file: IO[str]) -> Iterator[str]:
    try:
        for place, line in enumerate(iter(partial(file.readline, MAX_LINE_LENGTH), ""), 1):
            if len(line) == MAX_LINE_LENGTH:
                rule = f"is longer than {MAX_LINE_LENGTH:,} characters"
                raise not_a_log(f"{path}, line {place}", rule)
            if "\0" in line:
                raise not_a_log(str(path), "is not text")
            yield line
    except UnicodeDecodeError as error:
        raise not_a_log(str(path), "is not text") from error


def _delimiter(line: str) -> str:
    # A line with none of them gets the first.
    return max(",;\t|", key=line.count)
