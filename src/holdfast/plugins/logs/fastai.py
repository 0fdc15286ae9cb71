"""fastai's ``CSVLogger``: ``history.csv``, whose metrics are all of the validation rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from holdfast.plugins.logs import LOGS, Log, LogReader
from holdfast.plugins.logs.table import from_rows
from holdfast.plugins.logs.text import header, table


def read(path: Path) -> Log:
    """``train_loss`` is an exponentially weighted mean over batches; ``time`` is per epoch, as
    ``minutes:seconds``."""
    seconds: list[float | None] = []

    def timed() -> Iterator[dict[str, str]]:
        for row in table(path):
            seconds.append(clock(row.get("time", "")))
            yield row

    log = from_rows(timed(), "fastai", str(path), unsided="valid")
    total = sum(s for s in seconds if s is not None) if any(seconds) else None
    return replace(log, seconds=total)


def accepts(path: Path) -> bool:
    """Whether this looks like such a log; never raises."""
    names = header(path)
    return {"epoch", "train_loss", "valid_loss", "time"} <= set(names)


def clock(text: str) -> float | None:
    """``hours:minutes:seconds`` with any part from the left missing, in seconds; also with
    ``"1 day, "`` before it. ``None`` for anything else."""
    days, _, rest = text.rpartition(",")
    parts = rest.strip().split(":")
    try:
        values = [float(part) for part in parts]
        whole = float(days.split()[0]) * 86_400 if days else 0.0
    except (ValueError, IndexError):
        return None
    return whole + sum((v * 60.0**power for power, v in enumerate(reversed(values))), 0.0)


LOGS.add("fastai", LogReader(accepts, read, "fastai's history.csv", 3))
