"""Ultralytics (YOLO) ``results.csv``: several losses a set, none of them the total."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from holdfast.core.curves import Series
from holdfast.core.records import Decision
from holdfast.plugins.logs import LOGS, Log, LogReader
from holdfast.plugins.logs.table import from_rows
from holdfast.plugins.logs.text import header, table


def read(path: Path) -> Log:
    """The parts of a set's loss are added up to ``train/loss`` and ``val/loss``, as the trainer
    itself minimises their weighted sum (the logged parts already carry their weights)."""
    log = from_rows(table(path), "ultralytics", str(path), unsided="valid")
    columns, decisions = dict(log.columns), list(log.decisions)
    for side in ("train", "val"):
        parts = [s for name, s in columns.items() if _is_part(name, side)]
        if not parts or f"{side}/loss" in columns:
            continue
        columns[f"{side}/loss"] = _sum(f"{side}/loss", parts)
        names = " + ".join(part.name for part in parts)
        decisions.append(
            Decision(f"{side}/loss", names, "the file has parts of a loss and no total")
        )
    return replace(log, columns=columns, decisions=tuple(decisions))


def accepts(path: Path) -> bool:
    """Whether this looks like such a log; never raises."""
    names = header(path)
    return any(_is_part(n, "train") for n in names) and any(_is_part(n, "val") for n in names)


def _is_part(name: str, side: str) -> bool:
    return name.startswith(f"{side}/") and name.endswith("_loss")


def _sum(name: str, parts: list[Series]) -> Series:
    # Only where every part was logged: a sum without one is another number.
    shared = parts[0].at
    for part in parts[1:]:
        shared = np.intersect1d(shared, part.at)
    values = sum(part.values[np.isin(part.at, shared)] for part in parts)
    return Series(name, shared, np.asarray(values, dtype=np.float64))


LOGS.add("ultralytics", LogReader(accepts, read, "an Ultralytics results.csv", 3))
