"""LLaMA-Factory's ``trainer_log.jsonl``: ``current_steps``, ``total_steps``, ``loss``,
``eval_loss``."""

from __future__ import annotations

from pathlib import Path

from holdfast.integrations.logs import LOGS, LogReader
from holdfast.integrations.logs.fastai import clock
from holdfast.integrations.logs.table import Log, from_rows, number
from holdfast.integrations.logs.text import head, objects

FILE = "trainer_log.jsonl"


def read(path: Path) -> Log:
    """A file or the output folder that holds it."""
    file = path / FILE if path.is_dir() else path
    rows = list(objects(file))
    elapsed = [clock(str(row["elapsed_time"])) for row in rows if "elapsed_time" in row]
    planned = [number(row.get("total_steps")) for row in rows]
    told = ("percentage", "total_steps", "elapsed_time", "remaining_time")
    return from_rows(
        [{k: v for k, v in row.items() if k not in told} for row in rows], "llama_factory",
        str(file), planned=next((p for p in reversed(planned) if p), None),
        seconds=elapsed[-1] if elapsed else None,
    )  # fmt: skip


def accepts(path: Path) -> bool:
    """Whether this looks like such a log; never raises."""
    if path.is_dir():
        return (path / FILE).is_file()
    start = head(path, (".jsonl",))
    return bool(start) and '"current_steps"' in str(start).splitlines()[0]


LOGS.add("llama_factory", LogReader(accepts, read, "LLaMA-Factory's trainer_log.jsonl", 4))
