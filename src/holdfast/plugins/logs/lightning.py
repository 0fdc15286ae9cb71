"""PyTorch Lightning's ``CSVLogger``: ``metrics.csv``, where each row fills only its own cells."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from holdfast.core.errors import DataError
from holdfast.core.records import Decision
from holdfast.plugins.logs import LOGS, Log, LogReader
from holdfast.plugins.logs.table import from_rows
from holdfast.plugins.logs.text import header, table

FILE = "metrics.csv"


def read(path: Path) -> Log:
    """A file, its ``version_…`` folder, or ``lightning_logs`` with one version in it."""
    file, chosen = _find(path)
    return from_rows(table(file), "lightning", str(file), decisions=chosen)


def accepts(path: Path) -> bool:
    """Whether this looks like such a log; never raises."""
    if path.is_dir():
        return bool(_files(path))
    names = header(path)
    return {"epoch", "step"} <= set(names) and (path.name == FILE or _has_empty_cells(path, names))


def _has_empty_cells(path: Path, names: list[str]) -> bool:
    if names != sorted(names) and names[:2] != ["epoch", "step"]:
        return False
    try:
        # The first evaluation shows it, and recognising a log must not take as long as reading it.
        return any("" in row.values() for row in islice(table(path), 50))
    except DataError:  # a broken table is refused where it is read
        return False


def _files(folder: Path) -> list[Path]:
    patterns = (FILE, f"version_*/{FILE}", f"lightning_logs/version_*/{FILE}")
    return [file for pattern in patterns for file in sorted(folder.glob(pattern))]


def _find(path: Path) -> tuple[Path, tuple[Decision, ...]]:
    if path.is_file():
        return path, ()
    files = _files(path)
    if len(files) > 1:
        shown = ", ".join(str(file.parent.relative_to(path)) for file in files[:12])
        raise DataError(str(path), "holds several runs", shown, "Name one of these folders.")
    return files[0], (Decision("log", str(files[0].relative_to(path)), "the only one there"),)


LOGS.add("lightning", LogReader(accepts, read, "a Lightning metrics.csv", 4))
