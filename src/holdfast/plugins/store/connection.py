"""Opening a store: SQLite in a file, or a database by its URL; made where it is not there.

SQLite writes ahead, so that readers go on beside the one writer; a transaction that returned is on
the disk; what is deleted is written over. A writer waits its turn from its first statement on:
one that has read before it writes would be turned away instead.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from holdfast.core.errors import DataError, MachineError, StoreError, StoreGone
from holdfast.data.database_url import DRIVERS, INSTALL, is_url, mask_password, without_password
from holdfast.plugins.store import tables

REMEDY = "Check that it is there, has room and may be written."
# How long a writer waits for another one [s].
PATIENCE = 10.0
# Taken by whoever makes tables in PostgreSQL; any number that nobody else takes.
CREATION_LOCK = 0x486F6C6466617374
# SQLAlchemy's names of what another try cannot mend: the record itself is at fault.
RECORD_ERRORS = ("IntegrityError", "DataError", "StatementError")


def file_of(where: str) -> Path | None:
    """The file of a store in SQLite; ``None`` of another database."""
    if not is_url(where):
        return Path(where).expanduser().absolute()
    scheme, _, rest = where.partition("://")
    if scheme.partition("+")[0] != "sqlite":
        return None
    return Path(rest.partition("?")[0].removeprefix("/")).absolute() if rest.strip("/") else None


def open_database(where: str) -> Engine:
    """The database at a URL or in a file, with the tables of the store.

    Raises ``MachineError`` where a driver is not installed, ``StoreError`` where the database is
    none, is another one, or was made by a newer Holdfast, ``StoreGone`` where it cannot be reached.
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
    """A transaction that writes: all of it or nothing."""
    with engine.connect() as connection:
        connection = connection.execution_options(holdfast_writes=True)
        with connection.begin():
            yield connection


@contextmanager
def translating_errors(where: str, *, opening: bool = False) -> Iterator[None]:
    """Every fault of the database at ``where`` as one block without the password: ``StoreGone``
    for what may pass, ``DataError`` for a record that it does not take."""
    database = mask_password(where)
    try:
        yield
    except ModuleNotFoundError as error:
        rule = "needs a driver that is not installed"
        remedy = INSTALL if where.partition("://")[0] in DRIVERS else "Install it."
        raise MachineError(database, rule, error.name, remedy) from None
    except (SQLAlchemyError, OSError, ValueError) as error:
        message = without_password(str(getattr(error, "orig", None) or error), where)[:300]
        # The chain of exceptions holds the URL.
        if "file is not a database" in message or "malformed" in message:
            raise StoreError(database, "is no store, or a damaged one", message, REMEDY) from None
        if opening and not isinstance(error, OSError):
            # What it says may hold the password, cut at the wrong place.
            rule, write = "is no URL of a database", "Write postgresql://NAME:PASSWORD@HOST/NAME"
            remedy = f"{write}, with / @ : of a password as %2F %40 %3A."
            raise StoreError(database, rule, None, remedy) from None
        if isinstance(error, ValueError) or type(error).__name__ in RECORD_ERRORS:
            rule = "does not take a record"
            raise DataError(database, rule, message, "Leave out what it names.") from None
        raise StoreGone(database, "cannot be used as a store", message, REMEDY) from None


def make_tables(engine: Engine, where: str) -> None:
    """The tables, where they are not there, and the mark by which this store is known."""
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
            rule = "holds tables of something else"
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
                    "was made by a newer Holdfast" if schema else "holds tables of something else"
                )
                remedy = "Update Holdfast, or name another store."
                raise StoreError(mask_password(where), rule, schema, remedy)
        tables.metadata.create_all(connection)
        if tables.facts.name not in existing:
            facts = {"schema": tables.SCHEMA, "mark": secrets.token_hex(4)}
            rows = [{"name": name, "value": value} for name, value in facts.items()]
            connection.execute(tables.facts.insert(), rows)


def _make_file(path: Path) -> None:
    """A file that nobody else reads: texts of people may stand in it."""
    name = str(path)
    if path.is_dir():
        raise StoreError(name, "is a folder, and a store is a file", None, "Name a file in it.")
    if not path.parent.is_dir():
        rule = "cannot be made: there is no such folder"
        raise StoreGone(name, rule, str(path.parent), "Make the folder, or name another file.")
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def _timeouts(path: Path | None) -> Mapping[str, Any]:
    # SQLAlchemy, not the driver, says when a transaction begins.
    if path is not None:
        return {"timeout": PATIENCE, "isolation_level": None}
    # A machine that is gone says nothing; by itself a system waits a quarter of an hour for it, and
    # two hours where nothing was sent.
    seconds = int(PATIENCE)
    alive = {"keepalives_idle": seconds, "keepalives_interval": 5, "keepalives_count": 2}
    return {"connect_timeout": seconds, "tcp_user_timeout": 2000 * seconds, **alive}


def _begin_sqlite(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    for line in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {line}")
    cursor.close()


def _begin(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        writes = connection.get_execution_options().get("holdfast_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
    elif connection.dialect.name == "postgresql":
        # Else a label waits for as long as somebody locks its table. Of this transaction alone:
        # a pooler gives the connection to others behind it.
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(1000 * PATIENCE)}")
