"""MLflow's local folders: ``mlruns/<experiment>/<run>/metrics/<name>``, plain text files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.core.errors import DataError
from holdfast.integrations.logs import LOGS, LogReader
from holdfast.integrations.logs.table import Log, from_rows, not_a_log, number


def read(path: Path) -> Log:
    """A run's folder or its ``metrics``, or a folder above with one run in it. A line is
    ``timestamp value step``, the time in milliseconds; MLflow itself is not needed."""
    folder = _one_run(path)
    rows, times = [], []
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = file.relative_to(folder).as_posix()
        for place, line in enumerate(file.read_text("utf-8").splitlines()):
            time, row = _point(f"{file}, line {place + 1}", name, line.split(), place)
            rows.append(row)
            times.append(time)
    seconds = (max(times) - min(times)) / 1000 if times else None
    return from_rows(rows, "mlflow", str(folder), seconds=seconds or None)


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
    step = values[2] if len(values) > 2 else float(place)
    return values[0], {"step": step, name: values[1]}


LOGS.add("mlflow", LogReader(accepts, read, "an MLflow run folder", 4))
