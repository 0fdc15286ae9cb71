"""Holdfast's own run folder, or its ``events.jsonl``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.integrations.logs import LOGS, LogReader
from holdfast.integrations.logs.table import Log, from_rows, not_a_log
from holdfast.integrations.logs.text import head, objects

FILE = "events.jsonl"
LOSSES = {"train_loss": "train_rows", "valid_loss": "valid_rows", "refined_loss": "valid_rows"}


def read(path: Path) -> Log:
    """The snapshots. Losses of both sets are means over fixed rows in evaluation mode. A snapshot
    writes a loss that is not a number as ``null``; it is one again here if there were rows."""
    file = path / FILE if path.is_dir() else path
    rows = [_row(event) for event in objects(file) if event.get("event") == "snapshot"]
    if not rows:
        raise not_a_log(str(file), "holds no snapshot")
    return from_rows(rows, "holdfast", str(file), clean=True, seconds=rows[-1].get("seconds"))


def accepts(path: Path) -> bool:
    """Whether this looks like such a log; never raises."""
    if path.is_dir():
        return (path / FILE).is_file()
    start = head(path, (".jsonl",))
    return bool(start) and '"event"' in str(start).splitlines()[0]


def _row(event: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"step": event.get("step"), "epoch": event.get("epoch")}
    row["seconds"] = event.get("seconds")
    for name, rows in LOSSES.items():
        lost = event.get(name) is None and bool(event.get(rows))
        row[name] = math.nan if lost else event.get(name)
    for side in ("train", "valid"):
        metrics = event.get(f"{side}_metrics") or {}
        row |= {f"{side}_{name}": value for name, value in metrics.items()}
    return row


LOGS.add("holdfast", LogReader(accepts, read, "Holdfast's run folder or events.jsonl", 6))
