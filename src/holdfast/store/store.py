"""``Store``: what a service writes and what everybody else reads of it.

Every method is synchronous and may be called by any thread. What goes wrong in the database is a
``StoreError``: whoever answers requests goes on without a store, and counts what was lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal

from holdfast.store.opened import open_database, refusing
from holdfast.store.records import Event, Feedback, KeptText, Outcome, Request, Said
from holdfast.store.url import masked

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


class Store:
    """The store at ``where``: a file of SQLite, or a URL. ``open_store`` makes one."""

    def __init__(self, where: str, engine: Engine) -> None:
        self._where = where
        self._engine = engine

    @property
    def name(self) -> str:
        """Where it is, without a password."""
        return masked(self._where)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    # What a service writes.

    def add_requests(self, requests: Sequence[Request]) -> None:
        """Calls with what was said, and their texts where they are kept; all or none."""
        from holdfast.store import tables

        with self._writing() as connection:
            _insert(connection, tables.requests, map(_of_request, requests))
            said = [{"request": one.id, **asdict(each)} for one in requests for each in one.said]
            _insert(connection, tables.answers, said)
            texts = [{"request": one.id, **asdict(each)} for one in requests for each in one.texts]
            _insert(connection, tables.texts, texts)

    def add_said(self, request: str, said: Sequence[Said]) -> None:
        """What another model said of a request that is there already."""
        from holdfast.store import tables

        with self._writing() as connection:
            rows = ({"request": request, **asdict(one)} for one in said)
            _insert(connection, tables.answers, rows)

    def add_feedback(self, feedback: Feedback) -> Feedback:
        """One label; the same record with its number. It is on the disk when this returns."""
        from holdfast.store import tables

        with self._writing() as connection:
            return replace(feedback, id=_numbered(connection, tables.feedback, feedback))

    def add_outcome(self, outcome: Outcome) -> Outcome:
        """What came of a request; the same record with its number."""
        from holdfast.store import tables

        with self._writing() as connection:
            return replace(outcome, id=_numbered(connection, tables.outcomes, outcome))

    def append(self, event: Event) -> Event:
        """Something that befell the service; the same record with its number."""
        from holdfast.store import tables

        with self._writing() as connection:
            return replace(event, id=_numbered(connection, tables.events, event))

    def save_state(self, name: str, body: Mapping[str, Any], at: float) -> None:
        """Remember ``body`` under a name, in the place of what was there."""
        from holdfast.store import tables

        with self._writing() as connection:
            connection.execute(tables.states.delete().where(tables.states.c.name == name))
            connection.execute(tables.states.insert().values(name=name, at=at, body=dict(body)))

    # What others read.

    def state(self, name: str) -> dict[str, Any] | None:
        """What was remembered last under a name; ``None`` where nothing was."""
        from sqlalchemy import select

        from holdfast.store import tables

        found = self._read(select(tables.states.c.body).where(tables.states.c.name == name))
        return dict(found[0].body) if found else None

    def request(self, id: str) -> Request | None:
        """A call with what was said and its texts; ``None`` where there is none."""
        found = self.requests(ids=[id])
        return found[0] if found else None

    def requests(
        self,
        *,
        ids: Sequence[str] | None = None,
        after: str = "",
        since: float | None = None,
        limit: int = 1000,
    ) -> list[Request]:
        """Calls in the order of their names, behind ``after``, with what was said and their texts:
        those of ``ids``, or those that were asked at ``since`` or later."""
        from sqlalchemy import select

        from holdfast.store import tables

        table = tables.requests
        wanted = select(table).where(table.c.id > after).order_by(table.c.id).limit(limit)
        if ids is not None:
            wanted = wanted.where(table.c.id.in_(list(ids)))
        if since is not None:
            wanted = wanted.where(table.c.at >= since)
        found = {row.id: Request(**_named(row)) for row in self._read(wanted)}
        said: dict[str, list[Said]] = {one: [] for one in found}
        kept: dict[str, list[KeptText]] = {one: [] for one in found}
        for row in self._read(_of(tables.answers, found)):
            said[row.request].append(Said(**_named(row, "request")))
        for row in self._read(_of(tables.texts, found)):
            kept[row.request].append(KeptText(**_named(row, "request")))
        return [
            replace(one, said=tuple(said[id]), texts=tuple(kept[id])) for id, one in found.items()
        ]

    def feedback(self, *, after: int = 0, limit: int = 10_000) -> list[Feedback]:
        """Labels in the order in which they came, behind number ``after``."""
        from sqlalchemy import select

        from holdfast.store import tables

        table = tables.feedback
        found = select(table).where(table.c.id > after).order_by(table.c.id).limit(limit)
        return [Feedback(**_named(row)) for row in self._read(found)]

    def outcomes(self, *, after: int = 0, limit: int = 10_000) -> list[Outcome]:
        """What came of requests, in the order in which it was told, behind number ``after``."""
        from sqlalchemy import select

        from holdfast.store import tables

        table = tables.outcomes
        found = select(table).where(table.c.id > after).order_by(table.c.id).limit(limit)
        return [Outcome(**_named(row)) for row in self._read(found)]

    def events(self, kind: str | None = None, *, after: int = 0, limit: int = 1000) -> list[Event]:
        """What befell the service, oldest first, behind number ``after``; of one kind or of all."""
        from sqlalchemy import select

        from holdfast.store import tables

        table = tables.events
        found = select(table).where(table.c.id > after).order_by(table.c.id).limit(limit)
        if kind is not None:
            found = found.where(table.c.kind == kind)
        return [Event(**_named(row)) for row in self._read(found)]

    # What goes away.

    def delete(
        self, at: float, *, by: Literal["request", "user", "who"], value: str
    ) -> dict[str, int]:
        """Delete everything of a request, of a user (by the hash that is stored), or what a person
        labelled; how many rows of each table went. The event that stays says that it was done, of
        what kind and how many, and names nobody."""
        from sqlalchemy import delete, select

        from holdfast.store import tables

        with self._writing() as connection:
            gone: dict[str, int] = {}
            if by == "who":
                mine = tables.feedback.c.who == value
                gone["feedback"] = connection.execute(delete(tables.feedback).where(mine)).rowcount
            else:
                ids = [value]
                if by == "user":
                    asked = select(tables.requests.c.id).where(tables.requests.c.user == value)
                    ids = list(connection.execute(asked).scalars())
                for table in (tables.texts, tables.answers, tables.feedback, tables.outcomes):
                    there = table.c.request.in_(ids)
                    gone[table.name] = connection.execute(delete(table).where(there)).rowcount
                there = tables.requests.c.id.in_(ids)
                gone["requests"] = connection.execute(delete(tables.requests).where(there)).rowcount
            body = {"by": by, "gone": gone}
            connection.execute(tables.events.insert().values(kind="deletion", at=at, body=body))
        return gone

    def expire(self, now: float) -> int:
        """Delete texts whose time is over; how many."""
        from sqlalchemy import delete

        from holdfast.store import tables

        with self._writing() as connection:
            over = tables.texts.c.expires_at <= now
            return connection.execute(delete(tables.texts).where(over)).rowcount

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """One transaction: all of it or nothing."""
        with refusing(self._where), self._engine.begin() as connection:
            yield connection

    def _read(self, statement: Any) -> list[Any]:
        with refusing(self._where), self._engine.connect() as connection:
            return list(connection.execute(statement))


def open_store(where: str) -> Store:
    """The store in a file or at a URL, made where it is not there; see ``open_database``."""
    return Store(where, open_database(where))


def _insert(connection: Connection, table: Any, rows: Iterable[Mapping[str, Any]]) -> None:
    if found := [dict(row) for row in rows]:
        connection.execute(table.insert(), found)


def _numbered(connection: Connection, table: Any, record: Any) -> int:
    made = connection.execute(table.insert().values(_but_id(record)).returning(table.c.id))
    return int(made.scalar_one())


def _of_request(request: Request) -> dict[str, Any]:
    return {
        name: getattr(request, name) for name in ("id", "at", "model", "rows", "seconds", "user")
    }


def _but_id(record: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(record).items() if name != "id"}


def _named(row: Any, *without: str) -> dict[str, Any]:
    return {name: value for name, value in row._mapping.items() if name not in without}


def _of(table: Any, ids: Iterable[str]) -> Any:
    from sqlalchemy import select

    return select(table).where(table.c.request.in_(list(ids))).order_by(table.c.index)
