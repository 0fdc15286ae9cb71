"""Tables with a header: those of Keras, Lightning, fastai and Ultralytics, and any other CSV."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from holdfast.core.curves import Series
from holdfast.core.decisions import notify
from holdfast.core.errors import DataError
from holdfast.core.records import Decision
from holdfast.plugins.logs import Log, not_a_log
from holdfast.plugins.logs.choose import parse_name
from holdfast.plugins.logs.table import file_decision, from_rows, parse_duration
from holdfast.plugins.logs.text import read_header, read_table, several_runs

METRICS = "metrics.csv"
RATES = ("lr", "learning_rate")


def is_table(path: Path) -> bool:
    """Whether the first line is a header."""
    return bool(read_header(path))


def read_csv(path: Path) -> Log:
    """One row an evaluation, columns found by name; separated by commas, semicolons, tabs or bars,
    whichever the header has most.
    """
    names = read_header(path)
    if not any(parse_name(name) for name in names):
        raise not_a_log(
            str(path), "has no column with the name of a loss or a metric", ", ".join(names[:12])
        )
    return from_rows(read_table(path), "csv", str(path))


def is_keras(path: Path) -> bool:
    """Whether this is Keras' ``CSVLogger``: ``epoch``, then every name in alphabetical order, each
    metric twice; only three names (``epoch,loss,val_loss``) could come from any program.
    """
    names = read_header(path)
    if len(names) < 4 or names[0] != "epoch" or not {"loss", "val_loss"} <= set(names):
        return False
    logged = names[1:]
    paired = all(f"val_{n}" in logged or n in RATES or n.startswith("val_") for n in logged)
    return paired and logged == sorted(logged)


def read_keras(path: Path) -> Log:
    """``loss`` is the mean over the epoch's batches, with dropout, while the model changes."""
    return from_rows(read_table(path), "keras", str(path))


def is_fastai(path: Path) -> bool:
    """Whether these are the columns of fastai's ``CSVLogger``."""
    return {"epoch", "train_loss", "valid_loss", "time"} <= set(read_header(path))


def read_fastai(path: Path) -> Log:
    """All metrics are of the validation rows; ``train_loss`` is an exponentially weighted mean over
    batches; ``time`` is per epoch, as ``minutes:seconds``."""
    seconds: list[float] = []

    def timed() -> Iterator[dict[str, str]]:
        for row in read_table(path):
            seconds.append(parse_duration(row.get("time", "")) or 0.0)
            yield row

    log = from_rows(timed(), "fastai", str(path), default_split="valid")
    return replace(log, seconds=sum(seconds) if any(seconds) else None)


def is_ultralytics(path: Path) -> bool:
    """Whether there are parts of a loss of both splits."""
    names = read_header(path)
    return all(any(_is_part(name, split) for name in names) for split in ("train", "val"))


def read_ultralytics(path: Path) -> Log:
    """Sum the parts of a split's loss to ``train/loss`` and ``val/loss``.

    The trainer itself minimises their weighted sum, and the logged parts already carry their
    weights.
    """
    log = from_rows(read_table(path), "ultralytics", str(path), default_split="valid")
    columns = dict(log.columns)
    for split in ("train", "val"):
        total = f"{split}/loss"
        parts = [s for name, s in columns.items() if _is_part(name, split)]
        if not parts or total in columns:
            continue
        # Only where every part was logged: a sum without one is another quantity.
        shared = parts[0].positions
        for part in parts[1:]:
            shared = np.intersect1d(shared, part.positions)
        values = sum(part.values[np.isin(part.positions, shared)] for part in parts)
        columns[total] = Series(total, shared, np.asarray(values, dtype=np.float64))
        names = " + ".join(part.name for part in parts)
        notify(Decision(total, names, "the file has parts of a loss and no total"))
    return replace(log, columns=columns)


def _is_part(name: str, split: str) -> bool:
    return name.startswith(f"{split}/") and name.endswith("_loss")


def is_lightning(path: Path) -> bool:
    """Whether this is Lightning's ``CSVLogger``: ``metrics.csv``, where each row fills only its own
    cells.
    """
    if path.is_dir():
        return bool(_lightning_files(path))
    names = read_header(path)
    if not {"epoch", "step"} <= set(names):
        return False
    if path.name == METRICS:
        return True
    if names != sorted(names) and names[:2] != ["epoch", "step"]:
        return False
    try:
        # The first evaluation shows it, and recognising a log must not take as long as reading it.
        return any("" in row.values() for row in islice(read_table(path), 50))
    except DataError:  # the reader refuses a broken table
        return False


def read_lightning(path: Path) -> Log:
    """A file, its ``version_…`` folder, or ``lightning_logs`` with one version in it."""
    if path.is_file():
        return from_rows(read_table(path), "lightning", str(path))
    files = _lightning_files(path)
    if len(files) > 1:
        names = [str(file.parent.relative_to(path)) for file in files]
        raise several_runs(path, names, "Name one of these folders.")
    notify(file_decision("log", files[0].relative_to(path), "the only one there"))
    return from_rows(read_table(files[0]), "lightning", str(files[0]))


def _lightning_files(folder: Path) -> list[Path]:
    patterns = (METRICS, f"version_*/{METRICS}", f"lightning_logs/version_*/{METRICS}")
    return [file for pattern in patterns for file in sorted(folder.glob(pattern))]
