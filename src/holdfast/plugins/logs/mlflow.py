"""MLflow's local folders: ``mlruns/<experiment>/<run>/metrics/<name>``, plain text files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.core.errors import DataError
from holdfast.plugins.logs import LOGS, Log, LogReader, not_a_log
from holdfast.plugins.logs.table import from_rows, number
from holdfast.plugins.logs.text import files_below


def read(path: Path) -> Log:
    """A run's folder or its ``metrics``, or a folder above with one run in it. A line is
    ``timestamp value step``, the time in milliseconds; MLflow itself is not needed."""
    folder = _one_run(path)
    first, last = math.inf, -math.inf

    def points() -> Iterator[dict[str, Any]]:
        nonlocal first, last
        for file in files_below(folder, "*"):
            name = file.relative_to(folder).as_posix()
            with file.open(encoding="utf-8") as lines:
                for place, line in enumerate(lines):
                    time, row = _point(f"{file}, line {place + 1}", name, line.split(), place)
                    first, last = min(first, time), max(last, time)
                    yield row

    log = from_rows(points(), "mlflow", str(folder))
    seconds = (last - first) / 1000
    return replace(log, seconds=seconds if seconds > 0 and math.isfinite(seconds) else None)


def accepts(path: Path) -> bool:
    """Whether this looks like such a log; never raises."""
    return path.is_dir() and bool(_runs(path))


def _runs(path: Path) -> list[Path]:
    if path.name == "metrics":
        return [path]
    found = [f for depth in ("metrics", "*/metrics", "*/*/metrics") for f in path.glob(depth)]
    return [f for f in sorted(found) if f.is_dir() and (f.parent / "meta.yaml").is_file()]


def _one_run(path: Path) -> Path:
    runs = [run for run in _runs(path) if any(run.iterdir())]
    if not runs:
        raise not_a_log(str(path), "holds MLflow runs, but none with a metric")
    if len(runs) > 1:
        shown = ", ".join(str(run.parent.relative_to(path)) for run in runs[:12])
        raise DataError(str(path), "holds several runs", shown, "Name the folder of one of them.")
    return runs[0]


def _point(where: str, name: str, cells: list[str], place: int) -> tuple[float, dict[str, Any]]:
    values = [number(cell) for cell in cells]
    if len(values) < 2 or values[0] is None or values[1] is None:
        raise DataError(
            where, "is not `timestamp value step`", " ".join(cells), "Give a folder MLflow wrote."
        )
    # Early versions wrote no step.
    step = values[2] if len(values) > 2 else float(place)
    return values[0], {"step": step, name: values[1]}


LOGS.add("mlflow", LogReader(accepts, read, "an MLflow run folder", 4))
