"""Opening a store: SQLite in a file, or a database by its URL; made where it is not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.core.errors import MachineError, StoreError
from holdfast.store.url import DRIVERS, INSTALL, is_url, masked, without_password

if TYPE_CHECKING:
    from sqlalchemy import Engine

SERVE = "pip install 'holdfast[serve]'"
# How long a writer waits for another one [s].
PATIENCE = 10.0


def open_database(where: str) -> Engine:
    """The database at a URL or in a file, with the tables of the store.

    Raises ``MachineError`` where a driver is not installed, ``StoreError`` where the database
    cannot be reached, is none, or was made by a newer Holdfast.
    """
    try:
        import sqlalchemy
    except ImportError as error:
        rule = "needs SQLAlchemy, which is not installed"
        raise MachineError("a store", rule, None, SERVE) from error
    with refusing(where):
        engine = sqlalchemy.create_engine(
            _own_url(where), pool_pre_ping=True, connect_args=_patient(where)
        )
        if engine.dialect.name == "sqlite":
            sqlalchemy.event.listen(engine, "connect", _begin_sqlite)
        _make_tables(engine, where)
    return engine


@contextmanager
def refusing(where: str) -> Iterator[None]:
    """Every fault of the database at ``where`` as a ``StoreError`` without the password."""
    from sqlalchemy.exc import SQLAlchemyError

    what = masked(where)
    try:
        yield
    except ModuleNotFoundError as error:
        rule = "needs a driver that is not installed"
        remedy = INSTALL if where.partition("://")[0] in DRIVERS else "Install it."
        raise MachineError(what, rule, error.name, remedy) from None
    except (SQLAlchemyError, OSError, ValueError) as error:
        said = without_password(str(getattr(error, "orig", None) or error), where)
        remedy = "Check that it is there, has room and may be written."
        # The chain of exceptions holds the URL.
        raise StoreError(what, "cannot be used as a store", said[:300], remedy) from None


def _own_url(where: str) -> Any:
    from sqlalchemy.engine import URL

    if not is_url(where):
        path = Path(where).expanduser().absolute()
        return URL.create("sqlite", database=str(path))
    scheme, _, rest = where.partition("://")
    return f"{DRIVERS.get(scheme, scheme)}://{rest}"


def _patient(where: str) -> dict[str, Any]:
    scheme = where.partition("://")[0] if is_url(where) else "sqlite"
    if scheme.startswith("sqlite"):
        return {"timeout": PATIENCE}
    return {"connect_timeout": int(PATIENCE)} if scheme in DRIVERS else {}


def _begin_sqlite(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    # Readers go on beside the one writer; what is deleted is written over.
    for line in ("journal_mode=WAL", "synchronous=NORMAL", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {line}")
    cursor.close()


def _make_tables(engine: Engine, where: str) -> None:
    import sqlalchemy

    from holdfast.store import tables

    with engine.begin() as connection:
        tables.metadata.create_all(connection)
        found = connection.execute(
            sqlalchemy.select(tables.facts.c.value).where(tables.facts.c.name == "schema")
        ).scalar()
        if found is None:
            connection.execute(tables.facts.insert().values(name="schema", value=tables.SCHEMA))
    if found is not None and found > tables.SCHEMA:
        rule = "was made by a newer Holdfast"
        raise StoreError(masked(where), rule, found, "Update Holdfast, or name another store.")
