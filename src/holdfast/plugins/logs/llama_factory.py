"""LLaMA-Factory's ``trainer_log.jsonl``: ``current_steps``, ``total_steps``, ``loss``,
``eval_loss``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.plugins.logs import LOGS, Log, LogReader
from holdfast.plugins.logs.fastai import clock
from holdfast.plugins.logs.table import from_rows, number
from holdfast.plugins.logs.text import head, objects

FILE = "trainer_log.jsonl"
PROGRESS = ("percentage", "total_steps", "elapsed_time", "remaining_time")


def read(path: Path) -> Log:
    """A file or the output folder that holds it."""
    file = path / FILE if path.is_dir() else path
    planned: float | None = None
    elapsed: float | None = None

    def logged() -> Iterator[dict[str, Any]]:
        nonlocal planned, elapsed
        for row in objects(file):
            planned = number(row.get("total_steps")) or planned
            if "elapsed_time" in row:
                elapsed = clock(str(row["elapsed_time"]))
            yield {k: v for k, v in row.items() if k not in PROGRESS}

    log = from_rows(logged(), "llama_factory", str(file))
    return replace(log, planned=planned, seconds=elapsed)


def accepts(path: Path) -> bool:
    """Whether this looks like such a log; never raises."""
    if path.is_dir():
        return (path / FILE).is_file()
    start = head(path, (".jsonl",))
    return bool(start) and '"current_steps"' in str(start).splitlines()[0]


LOGS.add("llama_factory", LogReader(accepts, read, "LLaMA-Factory's trainer_log.jsonl", 4))
