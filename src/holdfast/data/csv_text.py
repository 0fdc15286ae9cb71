"""Rows as CSV or TSV, from which every reader gets the same rows and cells."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from typing import IO

# What a spreadsheet takes for a formula (OWASP, CSV injection).
FORMULA = ("=", "+", "-", "@", "\t", "\r")


class _Lines:
    """Ends each record with a bare newline. To the writer they end with both marks: before Python
    3.13 it quotes no mark but those of its own, and others read a bare carriage return as an
    end."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text

    def write(self, record: str) -> None:
        self._text.write(record.removesuffix("\r\n") + "\n")


def write_delimited(
    text: IO[str],
    names: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    mark: str = ",",
    safe: bool = False,
) -> None:
    """The header and the rows: nothing for what is missing, ``true`` and ``false``, JSON for lists
    and objects. ``safe``: a text that a spreadsheet would take for a formula gets an apostrophe
    before it; numbers stay as they are."""
    writer = csv.writer(_Lines(text), delimiter=mark, lineterminator="\r\n")
    writer.writerow([_cell(name, safe) for name in names])
    writer.writerows([_cell(value, safe) for value in row] for row in rows)


def _cell(value: object, safe: bool) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    if safe and isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value
