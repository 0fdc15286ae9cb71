"""Weights & Biases' local folders: ``wandb-history.jsonl``, or the binary ``run-….wandb``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.core.errors import DataError, MachineError
from holdfast.plugins.logs import LOGS, Log, LogReader
from holdfast.plugins.logs.table import from_rows, number
from holdfast.plugins.logs.text import files_below, flat, objects

HISTORY = "wandb-history.jsonl"


def read(path: Path) -> Log:
    """A history file, a ``run-…`` folder, or ``wandb`` with one run in it. Runs written since 2020
    have only the binary form, which the package ``wandb`` decodes."""
    file = _one(path)
    found = _binary(file) if file.suffix == ".wandb" else objects(file)
    last: float | None = None

    def kept() -> Iterator[dict[str, Any]]:
        nonlocal last
        for row in (flat(one, str(file)) for one in found):
            runtime = number(row.get("_runtime"))
            last = runtime if last is None or (runtime or 0.0) > last else last
            yield {k: v for k, v in row.items() if k == "_step" or not k.startswith("_")}

    log = from_rows(kept(), "wandb", str(file))
    return replace(log, seconds=last if last is not None and math.isfinite(last) else None)


def accepts(path: Path) -> bool:
    """Whether this looks like such a log; never raises."""
    if path.is_file():
        return path.name == HISTORY or path.suffix == ".wandb"
    return bool(_files(path))


def _files(folder: Path) -> list[Path]:
    """Each run once: ``latest-run`` is a link to one of them. The text is preferred."""
    for pattern in (HISTORY, "*.wandb"):
        found = files_below(folder, pattern)
        if found:
            return found
    return []


def _one(path: Path) -> Path:
    files = [path] if path.is_file() else _files(path)
    if len(files) > 1:
        shown = ", ".join(file.parent.name for file in files[:12])
        raise DataError(str(path), "holds several runs", shown, "Name the folder of one of them.")
    return files[0]


def _binary(file: Path) -> Iterator[dict[str, Any]]:
    """The history records of a log that W&B's own scanner opens."""
    try:
        from wandb.proto import wandb_internal_pb2
        from wandb.sdk.internal.datastore import DataStore
    except ImportError as error:
        raise MachineError(
            str(file),
            "is the binary form of a run, which only wandb decodes",
            None,
            "pip install wandb, or give the run's history as CSV.",
        ) from error
    store = DataStore()
    store.open_for_scan(str(file))
    while data := _next(store):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            yield {
                i.key or "/".join(i.nested_key): json.loads(i.value_json)
                for i in record.history.item
            }


def _next(store: Any) -> bytes | None:
    """W&B asserts that the last record is whole; in a run that was killed it is not."""
    try:
        data: bytes | None = store.scan_data()
    except AssertionError:
        return None
    return data


LOGS.add("wandb", LogReader(accepts, read, "a Weights & Biases wandb-history.jsonl", 3))
