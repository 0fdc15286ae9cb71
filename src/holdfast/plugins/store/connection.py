"""Open a store: SQLite in a file, or a database by its URL; created where it does not exist.

SQLite uses a write-ahead log, so that readers continue while one process writes. A transaction that
returned is on the disk; deleted data is overwritten. A writer takes its lock with its first
statement: one that had read before would be rejected instead of waiting.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from holdfast.core.decisions import notify
from holdfast.core.discovery import user_path
from holdfast.core.errors import DataError, MachineError, StoreError, StoreGone
from holdfast.core.records import Decision
from holdfast.data.database_url import DRIVERS, INSTALL, is_url, mask_password, without_password
from holdfast.plugins.store import tables

REMEDY = "Check that it exists, has free space and is writable."
# How long a writer waits for another one [s].
PATIENCE = 10.0
# The advisory lock for creating tables in PostgreSQL; an arbitrary number.
CREATION_LOCK = 0x486F6C6466617374
# SQLAlchemy's errors for which a retry is useless: the record itself is invalid.
RECORD_ERRORS = ("IntegrityError", "DataError", "StatementError")


def file_of(where: str) -> Path | None:
    """The file of an SQLite store; ``None`` for another database."""
    if not is_url(where):
        return user_path(where).absolute()
    scheme, _, rest = where.partition("://")
    if scheme.partition("+")[0] != "sqlite":
        return None
    return Path(rest.partition("?")[0].removeprefix("/")).absolute() if rest.strip("/") else None


def open_database(where: str) -> Engine:
    """Open the database at a URL or in a file, with the tables of the store.

    Raises ``MachineError`` where a driver is not installed; ``StoreError`` for a file that is not a
    database, belongs to another program, or was created by a newer Holdfast; ``StoreGone`` where
    the database cannot be reached.
    """
    path = file_of(where)
    if is_url(where) and path is None and where.startswith("sqlite"):
        raise StoreError(
            mask_password(where), "names no file", None, "Write sqlite:///FOLDER/FILE.db."
        )
    scheme, _, rest = where.partition("://")
    url: Any = f"{DRIVERS.get(scheme, scheme)}://{rest}"
    if path is not None:
        url = URL.create("sqlite", database=str(path))
    with translating_errors(where, opening=True):
        engine = sqlalchemy.create_engine(
            url, pool_pre_ping=True, pool_timeout=PATIENCE, connect_args=_timeouts(path)
        )
        sqlalchemy.event.listen(engine, "begin", _begin)
        if path is not None:
            sqlalchemy.event.listen(engine, "connect", _begin_sqlite)
    try:
        make_tables(engine, where)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes everything or nothing."""
    with engine.connect() as connection:
        connection = connection.execution_options(holdfast_writes=True)
        with connection.begin():
            yield connection


@contextmanager
def translating_errors(where: str, *, opening: bool = False) -> Iterator[None]:
    """Translate every error of the database at ``where`` into one without the password:
    ``StoreGone`` for a temporary fault, ``DataError`` for a record that the database rejects."""
    database = mask_password(where)
    try:
        yield
    except ModuleNotFoundError as error:
        rule = "needs a driver that is not installed"
        remedy = INSTALL if where.partition("://")[0] in DRIVERS else "Install the driver."
        raise MachineError(database, rule, error.name, remedy) from None
    except (SQLAlchemyError, OSError, ValueError) as error:
        message = without_password(str(getattr(error, "orig", None) or error), where)[:300]
        # The chain of exceptions holds the URL.
        if "file is not a database" in message or "malformed" in message:
            raise StoreError(database, "is not a store, or is damaged", message, REMEDY) from None
        if opening and not isinstance(error, OSError):
            # The message may hold a part of the password.
            rule, write = "is not a database URL", "Write postgresql://NAME:PASSWORD@HOST/NAME"
            remedy = f"{write}, and escape / @ : in the password as %2F %40 %3A."
            raise StoreError(database, rule, None, remedy) from None
        if isinstance(error, ValueError) or type(error).__name__ in RECORD_ERRORS:
            rule, remedy = "rejects a record", "Correct or leave out the value that it names."
            raise DataError(database, rule, message, remedy) from None
        raise StoreGone(database, "cannot be used as a store", message, REMEDY) from None


def make_tables(engine: Engine, where: str) -> None:
    """Create the tables where they are missing."""
    path = file_of(where)
    with translating_errors(where):
        if path is not None:
            _make_file(path)
    with translating_errors(where), writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(
                sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(CREATION_LOCK))
            )
        existing = set(sqlalchemy.inspect(connection).get_table_names())
        store_tables = set(tables.metadata.tables)
        if tables.facts.name not in existing and (
            existing & store_tables or (existing and path is not None)
        ):
            rule = "contains tables of another program"
            raise StoreError(
                mask_password(where), rule, sorted(existing)[:5], "Name another store."
            )
        if tables.facts.name in existing:
            schema_query = sqlalchemy.select(tables.facts.c.value).where(
                tables.facts.c.name == "schema"
            )
            schema = connection.execute(schema_query).scalar()
            if schema is None or schema > tables.SCHEMA:
                rule = (
                    "was created by a newer version of Holdfast"
                    if schema
                    else "contains tables of another program"
                )
                remedy = "Update Holdfast, or name another store."
                raise StoreError(mask_password(where), rule, schema, remedy)
        tables.metadata.create_all(connection)
        if tables.facts.name not in existing:
            connection.execute(tables.facts.insert().values(name="schema", value=tables.SCHEMA))


def _make_file(path: Path) -> None:
    """Create a file that only its owner can read: it may hold users' texts. One that others can
    read is a decision."""
    name = str(path)
    if path.is_dir():
        raise StoreError(name, "is a folder; a store is a file", None, "Name a file in it.")
    if not path.parent.is_dir():
        rule = "cannot be created: its folder does not exist"
        raise StoreGone(name, rule, str(path.parent), "Create the folder, or name another file.")
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    elif path.stat().st_mode & 0o077:
        because = f"it may hold users' texts; run chmod 600 {path}"
        notify(Decision("store", f"{path} can be read by other accounts", because, prominent=True))


def _timeouts(path: Path | None) -> Mapping[str, Any]:
    # SQLAlchemy, not the driver, begins transactions.
    if path is not None:
        return {"timeout": PATIENCE, "isolation_level": None}
    # A machine that is gone sends nothing; by default a system waits a quarter of an hour for it,
    # and two hours where nothing was sent.
    seconds = int(PATIENCE)
    alive = {"keepalives_idle": seconds, "keepalives_interval": 5, "keepalives_count": 2}
    return {"connect_timeout": seconds, "tcp_user_timeout": 2000 * seconds, **alive}


def _begin_sqlite(connection: Any, _: Any) -> None:
    try:
        for line in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
            connection.execute(f"PRAGMA {line}")
    except BaseException:
        # SQLAlchemy forgets a connection that a listener refuses.
        connection.close()
        raise


def _begin(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        writes = connection.get_execution_options().get("holdfast_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
    elif connection.dialect.name == "postgresql":
        # Without it, a label waits as long as its table is locked. LOCAL to this transaction,
        # since a pooler gives the connection to other clients.
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(1000 * PATIENCE)}")
