"""Runs one read-only SQL query on tables in memory. Standard library only."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import Any

Table = tuple[list[str], list[list[Any]]]

MAX_ROWS = 10_000
# SQLite's own limit is a gigabyte: ``zeroblob`` in a short query would fill memory.
MAX_VALUE_BYTES, MAX_QUERY_BYTES = 1_000_000, 100_000
# Instructions of SQLite's virtual machine between two checks of the clock.
CHECK_EVERY = 10_000
READ_ACTIONS = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)
REFUSED_FUNCTIONS = ("load_extension", "fts3_tokenizer", "readfile", "writefile", "edit")


def prepare(load_sibling: object) -> None:
    """Load what a query may need, before the limits; ``random()`` takes its seed from a file."""
    connection = sqlite3.connect(":memory:")
    connection.execute("SELECT random()").fetchall()
    connection.close()


def load_for(query: str) -> None:
    """Nothing to load: no query needs more."""


def run(query: str, tables: dict[str, Table], seconds: float) -> list[list[Any]]:
    """The rows of the query. Raises ``sqlite3.Error`` where it is refused, wrong or too long."""
    with closing(sqlite3.connect(":memory:")) as connection:
        result_rows = _fetch(connection, query, tables, seconds)
    if len(result_rows) > MAX_ROWS:
        raise sqlite3.Error("too many rows")
    return [list(row) for row in result_rows]


def _fetch(
    connection: sqlite3.Connection, query: str, tables: dict[str, Table], seconds: float
) -> list[Any]:
    for name, (columns, rows) in tables.items():
        _fill(connection, name, columns, rows)
    # Otherwise sorting and grouping would open a temporary file, which the fence refuses.
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.commit()
    # The tables are filled: from here on nothing may write.
    deadline = time.monotonic() + seconds
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_QUERY_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.set_progress_handler(lambda: time.monotonic() > deadline, CHECK_EVERY)
    connection.set_authorizer(authorize)
    # One more than the maximum, to detect that there are more.
    return connection.execute(query).fetchmany(MAX_ROWS + 1)


def _fill(
    connection: sqlite3.Connection, name: str, columns: list[str], rows: list[list[Any]]
) -> None:
    """Create and fill a table; columns without a type keep each value unchanged."""
    marks = ", ".join("?" for _ in columns)
    connection.execute(f"CREATE TABLE {_quoted(name)} ({', '.join(map(_quoted, columns))})")
    cells = ([_sql_value(cell) for cell in row] for row in rows)
    connection.executemany(f"INSERT INTO {_quoted(name)} VALUES ({marks})", cells)


def authorize(action: int, first: str | None, second: str | None, *_: Any) -> int:
    """Allow reading and harmless functions; nothing that writes, attaches or loads."""
    if action in READ_ACTIONS:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and str(second).lower() not in REFUSED_FUNCTIONS:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _sql_value(cell: object) -> Any:
    return cell if cell is None or isinstance(cell, (int, float, str)) else str(cell)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
