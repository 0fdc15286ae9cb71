"""Keras: the CSV of ``CSVLogger``, and the dictionary of a ``History`` saved as JSON."""

from __future__ import annotations

from pathlib import Path

from holdfast.plugins.logs import LOGS, Log, LogReader
from holdfast.plugins.logs.table import from_rows
from holdfast.plugins.logs.text import header, table

RATES = ("lr", "learning_rate")


def read(path: Path) -> Log:
    """``loss`` is the running mean over the epoch's batches, with dropout, on a moving model."""
    return from_rows(table(path), "keras", str(path))


def accepts(path: Path) -> bool:
    """``CSVLogger`` writes ``epoch``, then every name in the order of the alphabet, each metric
    twice; three names alone (``epoch,loss,val_loss``) could come from anybody."""
    names = header(path)
    if len(names) < 4 or names[0] != "epoch" or not {"loss", "val_loss"} <= set(names):
        return False
    logged = names[1:]
    paired = all(f"val_{n}" in logged or n in RATES or n.startswith("val_") for n in logged)
    return paired and logged == sorted(logged)


LOGS.add("keras", LogReader(accepts, read, "a Keras CSVLogger file or history JSON", 3))
