"""Any file with one JSON object a line, and JSON lists of objects; names are found as in a CSV."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from holdfast.plugins.logs import LOGS, Log, LogReader, not_a_log
from holdfast.plugins.logs.table import from_rows
from holdfast.plugins.logs.text import document, flat, head, objects


def read(path: Path) -> Log:
    """Nested objects are flattened: ``{"train": {"loss": 1}}`` is the column ``train/loss``."""
    start = head(path) or ""
    found: Iterable[Any] = document(path) if start.startswith("[") else objects(path)
    if isinstance(found, list) and not all(isinstance(row, dict) for row in found):
        raise not_a_log(str(path), "is a list, but not of objects")
    return from_rows((flat(row, str(path)) for row in found), "jsonl", str(path))


def accepts(path: Path) -> bool:
    """Whether this looks like such a log; never raises."""
    start = head(path, (".jsonl", ".ndjson", ".json", ".log", ".txt"))
    if not start:
        return False
    by_name = path.suffix.lower() in (".jsonl", ".ndjson")
    return by_name or start.startswith(("{", "["))


LOGS.add("jsonl", LogReader(accepts, read, "a JSONL file with such names, one object a line", 0))
