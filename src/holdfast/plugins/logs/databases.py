"""Trackers' SQLite databases: MLflow's ``mlflow.db`` and a project file of Trackio.

``DATABASE/RUN`` reads one of several runs, by its name or identifier.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.core.errors import DataError
from holdfast.plugins.logs import Log, not_a_log
from holdfast.plugins.logs.table import from_rows
from holdfast.plugins.logs.text import flatten, several_runs

MAGIC = b"SQLite format 3\0"


class Queries(NamedTuple):
    """How one tracker stores runs: ``runs`` selects identifier, name, first and last time (as text
    or in milliseconds); ``points`` selects step, name and value of a run, or step and a JSON
    object."""

    runs: str
    points: str


TRACKERS = {
    "mlflow": Queries(
        "SELECT run_uuid, name, min(timestamp), max(timestamp) FROM metrics JOIN runs"
        " USING (run_uuid) WHERE lifecycle_stage = 'active' GROUP BY run_uuid ORDER BY 3",
        "SELECT step, key, iif(is_nan, 'nan', value) FROM metrics WHERE run_uuid = ?"
        " ORDER BY key, timestamp, step",
    ),
    "trackio": Queries(
        "SELECT run_id, run_name, min(timestamp), max(timestamp) FROM metrics GROUP BY run_id"
        " ORDER BY 3",
        "SELECT step, metrics FROM metrics WHERE run_id = ? ORDER BY id",
    ),
}


def is_database(path: Path) -> bool:
    """Whether this is an SQLite file, or the name of a run in one."""
    return _database(path) is not None


def read_database(path: Path) -> Log:
    """The run of a database with one, or the one that the last part of ``path`` names."""
    file = _database(path)
    assert file is not None
    address = f"{file.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as database:
        columns = {row[1] for row in database.execute("PRAGMA table_info(metrics)")}
        name = "mlflow" if "run_uuid" in columns else "trackio"
        if not columns >= {"timestamp", "step"} or not _tables_only(database):
            raise not_a_log(str(file), "is a database of another program")
        runs = database.execute(TRACKERS[name].runs).fetchall()
        requested = runs if path == file else [run for run in runs if path.name in run[:2]]
        names = [str(run[1] or run[0]) for run in runs]
        remedy = f"Name one of them: {file}/NAME."
        if not runs:
            raise not_a_log(str(file), "has no run with a metric")
        if not requested:
            raise DataError(str(file), "has no run of this name", path.name, remedy)
        if len(requested) > 1:
            names = names if path == file else [str(run[0]) for run in requested]
            raise several_runs(path, names, remedy)
        ((identifier, _, first, last),) = requested
        points = database.execute(TRACKERS[name].points, (identifier,))
        return from_rows(_rows(points, file), name, str(path), seconds=_seconds(first, last))


def _tables_only(database: sqlite3.Connection) -> bool:
    """Whether what is read is stored: a view computes its rows, perhaps without an end."""
    # What a name stands for is decided by the statement; the column `type` may say anything.
    definitions = database.execute(
        "SELECT sql FROM sqlite_master WHERE lower(name) IN ('metrics', 'runs')"
    )
    return all(str(sql).upper().startswith("CREATE TABLE") for (sql,) in definitions)


def _rows(points: sqlite3.Cursor, file: Path) -> Iterator[dict[str, Any]]:
    for step, *rest in points:
        if len(rest) == 2:
            yield {"step": step, rest[0]: rest[1]}
        else:
            yield flatten(json.loads(rest[0]), str(file)) | {"step": step}


def _seconds(first: object, last: object) -> float | None:
    if isinstance(first, int) and isinstance(last, int):
        return (last - first) / 1000 or None
    times = [datetime.fromisoformat(str(time)) for time in (first, last)]
    return (times[1] - times[0]).total_seconds() or None


def _database(path: Path) -> Path | None:
    for file in (path, path.parent):
        if file.is_file():
            with file.open("rb") as opened:
                return file if opened.read(len(MAGIC)) == MAGIC else None
    return None
