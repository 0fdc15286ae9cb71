"""``Store``: what a service writes and what everybody else reads of it.

Every method is synchronous and may be called by any thread. What goes wrong in the database is a
``StoreError``: whoever answers requests goes on without a store, and counts what was lost.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, Literal, TypeVar

from holdfast.core.errors import DataError, MachineError, StoreError
from holdfast.data.database_url import mask_password

try:
    from sqlalchemy import String, Table, and_, cast, delete, func, null, select, update
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.engine import Connection, Engine
except ImportError as error:
    rule = "needs SQLAlchemy, which is not installed"
    raise MachineError("a store", rule, None, "pip install 'holdfast[serve]'") from error

from holdfast.plugins.store import tables
from holdfast.plugins.store.connection import (
    PATIENCE,
    file_of,
    make_tables,
    open_database,
    refusing,
    writing,
)
from holdfast.plugins.store.records import (
    Claim,
    Event,
    Feedback,
    KeptRow,
    KeptText,
    RequestOutcome,
    StoredPrediction,
    StoredRequest,
    Tombstones,
)

By = Literal["request", "user", "who", "label"]
KINDS = ("request", "label")
# A fact of each deletion that is not scrubbed yet begins so.
OWED = "scrub-"
# The records that the store numbers as they come, and where they stand.
NUMBERED = {Feedback: tables.feedback, RequestOutcome: tables.outcomes, Event: tables.events}
Numbered = TypeVar("Numbered", Feedback, RequestOutcome, Event)
# Below the number of variables that SQLite takes in one statement.
AT_ONCE = 10_000
# Whatever a service answered is written or lost by then [s].
WRITTEN_WITHIN = 3600.0


class Store:
    """The store at ``where``: a file of SQLite, or a URL. ``open_store`` makes one.

    Several processes may use one store. A file that is deleted or replaced under it is made anew
    (``remade`` counts that): its connections would go on writing into a file that has no name.
    """

    def __init__(self, where: str, engine: Engine) -> None:
        self._where = where
        self._engine = engine
        self._path = file_of(where)
        self._inode = self._seen()
        self._lock = threading.Lock()
        self._mark: str | None = None
        self.remade = 0

    @property
    def name(self) -> str:
        """Where it is, without a password."""
        return mask_password(self._where)

    @property
    def mark(self) -> str:
        """What this store is known by [8 hexadecimal digits], drawn when it was made."""
        if self._mark is None:
            fact = tables.facts.c
            (found,) = self._read(select(fact.value).where(fact.name == "mark"))
            self._mark = str(found.value)
        return self._mark

    def close(self) -> None:
        """Give the connections back; what was deleted leaves the file first, where it is due."""
        self.settle()
        self._engine.dispose()

    # What a service writes.

    def add_requests(self, requests: Sequence[StoredRequest]) -> None:
        """Calls with what was said, and their texts where they are kept; all or none. Of one that
        was deleted meanwhile nothing is written."""
        with self._writing() as connection:
            gone = _buried(connection, [one.id for one in requests])
            since = _left(connection, {one.user for one in requests if one.user})
            calls = [
                one
                for one in requests
                if one.id not in gone and one.at > since.get(one.user or "", one.at - 1)
            ]
            _add_calls(connection, calls)
            said = [(one.id, each) for one in calls for each in one.said]
            _add_parts(connection, tables.answers, said)
            texts = [(one.id, each) for one in calls for each in one.texts]
            _add_parts(connection, tables.texts, texts)

    def add_said(self, request: str, said: Sequence[StoredPrediction]) -> None:
        """What another model said of a request that is there already."""
        with self._writing() as connection:
            if not _buried(connection, [request]):
                _add_parts(connection, tables.answers, [(request, one) for one in said])

    def add_feedback(self, feedback: Feedback, of: StoredRequest | None = None) -> Feedback:
        """One label; the same record with its number. It is on the disk when this returns, and with
        it the request ``of`` which it is, where that is not written yet: whoever forgets a user
        finds his labels by his requests. Raises ``DataError`` where the request was deleted."""
        with self._writing() as connection:
            _stands(connection, feedback.request, "label", of)
            return replace(feedback, id=_append(connection, feedback))

    def add_outcome(
        self, outcome: RequestOutcome, of: StoredRequest | None = None
    ) -> RequestOutcome:
        """What came of a request; as ``add_feedback``."""
        with self._writing() as connection:
            _stands(connection, outcome.request, "outcome", of)
            return replace(outcome, id=_append(connection, outcome))

    def append(self, event: Event) -> Event:
        """Something that befell the service; the same record with its number."""
        with self._writing() as connection:
            return replace(event, id=_append(connection, event))

    def save_state(self, name: str, body: Mapping[str, Any], at: float) -> None:
        """Remember ``body`` under a name, in the place of what was there."""
        values = {"at": at, "body": dict(body)}
        made = _inserting(self._engine)(tables.states).values(name=name, **values)
        self._write(made.on_conflict_do_update(index_elements=["name"], set_=values))

    # What others read.

    def state(self, name: str) -> dict[str, Any] | None:
        """What was remembered last under a name; ``None`` where nothing was."""
        found = self._read(select(tables.states.c.body).where(tables.states.c.name == name))
        return dict(found[0].body) if found else None

    def request(self, id: str) -> StoredRequest | None:
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
    ) -> list[StoredRequest]:
        """Calls in the order of their names, behind ``after``, with what was said and their texts:
        those of ``ids``, or those that were asked at ``since`` or later."""
        table = tables.requests
        wanted = select(table).where(table.c.id > after).order_by(table.c.id).limit(limit)
        if ids is not None:
            wanted = wanted.where(table.c.id.in_(list(ids)))
        if since is not None:
            wanted = wanted.where(table.c.at >= since)
        found = {row.id: StoredRequest(**_named(row)) for row in self._read(wanted)}
        said: dict[str, list[StoredPrediction]] = {one: [] for one in found}
        kept: dict[str, list[KeptText]] = {one: [] for one in found}
        answers, texts = tables.answers, tables.texts
        own = answers.c
        order = own.index, own.shown.desc(), own.model
        of_these = select(answers).where(own.request.in_(list(found))).order_by(*order)
        for row in self._read(of_these):
            said[row.request].append(StoredPrediction(**_named(row, "request")))
        of_these = select(texts).where(texts.c.request.in_(list(found))).order_by(texts.c.index)
        for row in self._read(of_these):
            kept[row.request].append(KeptText(**_named(row, "request")))
        return [
            replace(one, said=tuple(said[id]), texts=tuple(kept[id])) for id, one in found.items()
        ]

    def kept(self, limit: int = 5000) -> list[KeptRow]:
        """The newest rows whose text is kept, the newest first, each with the answer that went
        out."""
        own = tables.texts.c
        newest = _kept_rows().order_by(own.request.desc(), own.index).limit(limit)
        return [_kept(one) for one in self._read(newest)]

    def kept_row(self, request: str, index: int) -> KeptRow | None:
        """One such row; ``None`` where its text is not kept."""
        own = tables.texts.c
        found = self._read(_kept_rows().where(own.request == request, own.index == index))
        return _kept(found[0]) if found else None

    def feedback_by(self, who: str, *, source: str) -> list[Feedback]:
        """The labels of one person from one source, in the order in which they came."""
        own = tables.feedback.c
        return self._in_order(Feedback, own.who == who, own.source == source)

    def feedback_of(self, request: str, index: int) -> list[Feedback]:
        """The labels of one row, in the order in which they came."""
        own = tables.feedback.c
        return self._in_order(Feedback, own.request == request, own.index == index)

    def feedback(self, *, after: int = 0, limit: int | None = 10_000) -> list[Feedback]:
        """Labels in the order in which they came, behind number ``after``; ``None``: all."""
        return self._in_order(Feedback, tables.feedback.c.id > after, limit=limit)

    def outcomes(self, *, after: int = 0, limit: int = 10_000) -> list[RequestOutcome]:
        """What came of requests, in the order in which it was told, behind number ``after``."""
        return self._in_order(RequestOutcome, tables.outcomes.c.id > after, limit=limit)

    def events(
        self, kind: str | None = None, *, after: int = 0, limit: int | None = 1000
    ) -> list[Event]:
        """What befell the service, oldest first, behind number ``after``; of one kind or of all;
        ``limit`` of them, or every one (``None``)."""
        own = tables.events.c
        of_kind = [] if kind is None else [own.kind == kind]
        return self._in_order(Event, own.id > after, *of_kind, limit=limit)

    def newest_events(self, limit: int = 1000) -> list[Event]:
        """What befell the service last, oldest first."""
        newest = select(tables.events).order_by(tables.events.c.id.desc()).limit(limit)
        found = self._read(newest)
        return [Event(**_named(row)) for row in reversed(found)]

    def calls(self, since: float, limit: int) -> list[tuple[float, int, float, str]]:
        """When calls came at ``since`` or later, how many rows each had, how long it took [s], and
        of which model, the newest first."""
        own = tables.requests.c
        wanted = select(own.at, own.rows, own.seconds, own.model).where(own.at >= since)
        found = self._read(wanted.order_by(own.at.desc()).limit(limit))
        return [(row.at, row.rows, row.seconds, row.model) for row in found]

    def states(self, beginning: str) -> dict[str, dict[str, Any]]:
        """Everything that was remembered last under names that begin so."""
        own = tables.states.c
        found = self._read(select(own.name, own.body).order_by(own.name))
        return {row.name: dict(row.body) for row in found if row.name.startswith(beginning)}

    def count_feedback(self) -> int:
        """How many labels there are."""
        return int(self._read(select(func.count()).select_from(tables.feedback))[0][0])

    def tombstones(self) -> Tombstones:
        """What was deleted so far, for whoever keeps copies of rows: they are to let go of it."""
        found = self._read(select(tables.tombstones.c.kind, tables.tombstones.c.key))
        by = {kind: frozenset(one.key for one in found if one.kind == kind) for kind in KINDS}
        return Tombstones(by["request"], by["label"])

    def select(self, statement: Any) -> list[Any]:
        """The rows of a statement over ``plugins.store.tables``, for what no method reads."""
        return self._read(statement)

    # What goes away.

    def delete(self, at: float, *, by: By, value: str) -> dict[str, int]:
        """Delete everything of a request, of a user (by the hash that is stored), what a person
        labelled (``who``), or one label by its number; how many rows of each table went.

        The event that stays says that it was done, by what and how many, and names nobody; a
        tombstone keeps what was deleted from coming back. The bytes are gone from the file as soon
        as no reader stands in the way: see ``scrub``.
        """
        labels = tables.feedback.c
        mark = self.mark
        with self._writing() as connection:
            of = _of_whom(by, value)
            numbers = connection.execute(select(labels.id).where(of["feedback"])).scalars().all()
            buried = [("label", f"{mark}-{number}") for number in numbers]
            if "requests" in of:
                ids = select(tables.requests.c.id).where(of["requests"])
                asked = connection.execute(ids).scalars().all()
                buried += [("request", one) for one in {*asked, *([value] * (by == "request"))}]
            gone = {}
            for name, there in of.items():
                done = connection.execute(delete(tables.metadata.tables[name]).where(there))
                gone[name] = done.rowcount
            if by == "user":
                # What other processes have not written yet: forgotten again within the hour.
                buried.append(("user", value))
            _bury(connection, buried, at)
            _erase(connection)
            body = {"by": by, "gone": gone}
            connection.execute(tables.events.insert().values(kind="deletion", at=at, body=body))
        self.scrub()
        return gone

    def expire(self, now: float) -> int:
        """Delete texts whose time is over, those that came with labels too; how many. The answers
        and the labels stay."""
        texts, labels = tables.texts, tables.feedback
        with self._writing() as connection:
            over = delete(texts).where(texts.c.expires_at <= now)
            gone = connection.execute(over).rowcount
            emptied = (
                update(labels).where(labels.c.expires_at <= now).values(row=null(), expires_at=None)
            )
            gone += connection.execute(emptied).rowcount
            if gone:
                _erase(connection)
            own = tables.tombstones.c
            old = (own.kind == "user") & (own.at < now - WRITTEN_WITHIN)
            connection.execute(delete(tables.tombstones).where(old))
        self.settle()
        return gone

    def settle(self) -> None:
        """Scrub where it is due, whoever left it so. A store that cannot be used leaves it to the
        next one who opens it."""
        with contextlib.suppress(StoreError):
            if self.owed():
                self.scrub(0.1)

    def owed(self) -> list[str]:
        """The deletions whose bytes may still stand in the store's files, by their marks: they are
        written down with the deletion, so that no process that ends takes them along."""
        name = tables.facts.c.name
        return [one.name for one in self._read(select(name).where(name.like(f"{OWED}%")))]

    def scrub(self, patience_s: float = 2.0) -> bool:
        """Empty the file of SQLite in which what was deleted would still stand; of PostgreSQL, let
        the place be used again. ``False`` where a reader is in the way for longer than
        ``patience_s``: it stays due then, for whoever opens, closes or expires the store next."""
        owed, busy = self.owed(), False
        with refusing(self._where), self._engine.connect() as connection:
            plain = connection.execution_options(isolation_level="AUTOCOMMIT")
            if connection.dialect.name == "sqlite":
                plain.exec_driver_sql(f"PRAGMA busy_timeout={int(1000 * patience_s)}")
                busy = bool(plain.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0])
                plain.exec_driver_sql(f"PRAGMA busy_timeout={int(1000 * PATIENCE)}")
            elif connection.dialect.name == "postgresql":
                for name in ("texts", "feedback", "answers", "requests"):
                    plain.exec_driver_sql(f"VACUUM {name}")
        if owed and not busy:
            # Of a deletion that came meanwhile nothing is known yet.
            with self._writing() as connection:
                connection.execute(delete(tables.facts).where(tables.facts.c.name.in_(owed)))
        return not busy

    # Who labels what, now.

    def claim(self, request: str, index: int, who: str, now: float, until: float) -> bool:
        """Take a row for ``who`` alone, until then; ``False`` where another has it. Of two who ask
        at once one gets it, in whichever process."""
        own = tables.claims
        with self._writing() as connection:
            made = _inserting(connection)(own).values(
                request=request, index=index, who=who, until=until, seen=False
            )
            free = (own.c.until <= now) | (own.c.who == who)
            # Who comes back to a row has not forgotten what he saw.
            seen = and_(own.c.who == who, own.c.seen)
            taken = made.on_conflict_do_update(
                index_elements=["request", "index"],
                set_={"who": who, "until": until, "seen": seen},
                where=free,
            )
            return connection.execute(taken.returning(own.c.who)).scalar() == who

    def see(self, request: str, index: int, who: str) -> None:
        """``who`` has now seen the model's answer to the row that he labels."""
        mine = _mine(tables.claims, request, index, who)
        self._write(tables.claims.update().where(mine).values(seen=True))

    def release(self, request: str, index: int, who: str) -> None:
        """Give a row back that ``who`` had taken."""
        self._write(tables.claims.delete().where(_mine(tables.claims, request, index, who)))

    def claims(self, now: float) -> list[Claim]:
        """Who labels which row now."""
        found = self._read(select(tables.claims).where(tables.claims.c.until > now))
        return [Claim(**_named(row)) for row in found]

    def skip(self, request: str, index: int, who: str, at: float) -> None:
        """``who`` would rather not label this row."""
        values = {"request": request, "index": index, "who": who, "at": at}
        self._write(
            _inserting(self._engine)(tables.skips).values(**values).on_conflict_do_nothing()
        )

    def unskip(self, request: str, index: int, who: str) -> None:
        """Take that back."""
        self._write(tables.skips.delete().where(_mine(tables.skips, request, index, who)))

    def skipped(self) -> list[tuple[str, int, str, float]]:
        """Request, index, who and when, oldest first."""
        found = self._read(select(tables.skips).order_by(tables.skips.c.at))
        return [(row.request, row.index, row.who, row.at) for row in found]

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """One transaction: all of it or nothing."""
        self._need_file()
        with refusing(self._where), writing(self._engine) as connection:
            yield connection

    def _write(self, statement: Any) -> None:
        """One statement, which is a transaction of its own."""
        with self._writing() as connection:
            connection.execute(statement)

    def _read(self, statement: Any) -> list[Any]:
        self._need_file()
        with refusing(self._where), self._engine.connect() as connection:
            return list(connection.execute(statement))

    def _in_order(
        self, record: type[Numbered], *where: Any, limit: int | None = None
    ) -> list[Numbered]:
        """Records in the order of their numbers."""
        table = NUMBERED[record]
        found = select(table).where(*where).order_by(table.c.id).limit(limit)
        return [record(**_named(row)) for row in self._read(found)]

    def _seen(self) -> tuple[int, int] | None:
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _need_file(self) -> None:
        if self._path is None or self._seen() == self._inode is not None:
            return
        with self._lock:
            if self._seen() == self._inode is not None:
                return
            self._engine.dispose()
            make_tables(self._engine, self._where)
            self._inode, self._mark = self._seen(), None
            self.remade += 1


def open_store(where: str, *, make: bool = True) -> Store:
    """The store in a file or at a URL, made where it is not there, unless ``make`` is off; see
    ``open_database``. What an earlier process could not erase is erased now, where no reader stands
    in the way."""
    path = file_of(where)
    if not make and path is not None and not path.is_file():
        raise StoreError(str(path), "is not there", None, "Name the store of the service.")
    store = Store(where, open_database(where))
    store.settle()
    return store


def _kept_rows() -> Any:
    texts, answers, calls = tables.texts, tables.answers, tables.requests
    same = and_(answers.c.request == texts.c.request, answers.c.index == texts.c.index)
    return (
        select(texts.c.row, texts.c.vector, texts.c.expires_at, answers, calls.c.at)
        .join(answers, and_(same, answers.c.shown))
        .join(calls, calls.c.id == texts.c.request)
    )


def _kept(row: Any) -> KeptRow:
    said = StoredPrediction(**_named(row, "request", "row", "vector", "expires_at", "at"))
    return KeptRow(row.request, row.index, row.at, row.row, said, row.vector, row.expires_at)


def _mine(table: Any, request: str, index: int, who: str) -> Any:
    own = table.c
    return (own.request == request) & (own.index == index) & (own.who == who)


def _of_whom(by: By, value: str) -> dict[str, Any]:
    """The rows of each table that go, as a condition."""
    if by == "label":
        return {"feedback": tables.feedback.c.id == int(value)}
    if by == "who":
        return {
            name: tables.metadata.tables[name].c.who == value
            for name in ("feedback", "claims", "skips")
        }
    asked = tables.requests.c.id if by == "request" else tables.requests.c.user
    names = ("texts", "answers", "feedback", "outcomes", "claims", "skips")
    ids = select(tables.requests.c.id).where(asked == value)
    of = {}
    for name in names:
        column = tables.metadata.tables[name].c.request
        of[name] = column == value if by == "request" else column.in_(ids)
    # Last: the others are found by it.
    return {**of, "requests": asked == value}


def _buried(connection: Connection, requests: Sequence[str]) -> set[str]:
    own, found = tables.tombstones.c, set[str]()
    for start in range(0, len(requests), AT_ONCE):
        some = own.key.in_(requests[start : start + AT_ONCE])
        keys = select(own.key).where(own.kind == "request", some)
        found |= set(connection.execute(keys).scalars())
    return found


def _stands(connection: Connection, request: str, what: str, of: StoredRequest | None) -> None:
    """See that a request stands in the store, as ``of`` where it is not written yet. Raises
    ``DataError`` where it was deleted, or its user was since."""
    gone = bool(_buried(connection, [request]))
    if of is not None and of.user:
        gone = gone or _left(connection, {of.user}).get(of.user, of.at - 1) >= of.at
    if gone:
        raise DataError(
            f"the request {request}",
            f"was deleted, and takes no {what}",
            None,
            f"Ask again, and send the {what} of the new answer.",
        )
    if of is not None:
        _add_calls(connection, [of])


def _add_calls(connection: Connection, calls: Sequence[StoredRequest]) -> None:
    """Requests; of one that came with its label already nothing is written again."""
    if calls:
        once = _inserting(connection)(tables.requests).on_conflict_do_nothing()
        names = ("id", "at", "model", "rows", "seconds", "user")
        connection.execute(once, [{name: getattr(one, name) for name in names} for one in calls])


def _left(connection: Connection, users: set[str]) -> dict[str, float]:
    """When the data of these users were deleted last."""
    own = tables.tombstones.c
    named = select(own.key, own.at).where(own.kind == "user", own.key.in_(sorted(users)[:AT_ONCE]))
    return {row.key: row.at for row in connection.execute(named)} if users else {}


def _bury(connection: Connection, what: Sequence[tuple[str, str]], at: float) -> None:
    if what:
        made = _inserting(connection)(tables.tombstones)
        made = made.on_conflict_do_update(
            index_elements=["kind", "key"], set_={"at": made.excluded.at}
        )
        connection.execute(made, [{"kind": kind, "key": key, "at": at} for kind, key in what])


def _erase(connection: Connection) -> None:
    """Behind a deletion: take texts out of events (``{"row": "REQUEST/INDEX", "text": …}``) that
    are not kept where they were asked any more, and write down that the bytes of it all are to
    leave the files, whoever does it."""
    events, texts = tables.events, tables.texts.c
    named = select(events.c.id, events.c.body).where(cast(events.c.body, String).like('%"text"%'))
    for event in connection.execute(named).all():
        quoted = [one for one in _records(event.body) if "text" in one and "row" in one]
        for one in quoted:
            request, _, index = str(one["row"]).rpartition("/")
            place = int(index) if index.isdigit() else -1
            there = select(texts.index).where(texts.request == request, texts.index == place)
            if connection.execute(there).first() is None:
                del one["text"]
        if any("text" not in one for one in quoted):
            changed = events.update().where(events.c.id == event.id).values(body=event.body)
            connection.execute(changed)
    owed = {"name": f"{OWED}{secrets.token_hex(8)}", "value": True}
    connection.execute(tables.facts.insert().values(owed))


def _records(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping within a JSON value, however deep."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for one in value if isinstance(value, list) else ():
        yield from _records(one)


def _inserting(connection: Connection | Engine) -> Any:
    """``INSERT`` with what to do where a row is there already, which both databases know."""
    return {"sqlite": sqlite, "postgresql": postgresql}[connection.dialect.name].insert


def _add_parts(
    connection: Connection, table: Table, parts: Sequence[tuple[str, StoredPrediction | KeptText]]
) -> None:
    """What belongs to requests, by their names."""
    if parts:
        rows = [{"request": request, **asdict(part)} for request, part in parts]
        connection.execute(table.insert(), rows)


def _append(connection: Connection, record: Feedback | RequestOutcome | Event) -> int:
    """Write a record; its number."""
    table = NUMBERED[type(record)]
    values = {name: value for name, value in asdict(record).items() if name != "id"}
    made = connection.execute(table.insert().values(values).returning(table.c.id))
    return int(made.scalar_one())


def _named(row: Any, *without: str) -> dict[str, Any]:
    return {name: value for name, value in row._mapping.items() if name not in without}
