"""Any table with a header: one row an evaluation, columns found by name."""

from __future__ import annotations

from pathlib import Path

from holdfast.plugins.logs import LOGS, Log, LogReader, not_a_log
from holdfast.plugins.logs.names import meaning
from holdfast.plugins.logs.table import from_rows
from holdfast.plugins.logs.text import header, table


def read(path: Path) -> Log:
    """Commas, semicolons, tabs or bars, whichever the header has most."""
    names = header(path)
    if not any(meaning(name) for name in names):
        raise not_a_log(
            str(path), "has no column that is named like a loss or a metric", ", ".join(names[:12])
        )
    return from_rows(table(path), "csv", str(path))


def accepts(path: Path) -> bool:
    """Whether this looks like such a log; never raises."""
    return bool(header(path))


LOGS.add("csv", LogReader(accepts, read, "a CSV with columns such as epoch, loss, val_loss", 0))
