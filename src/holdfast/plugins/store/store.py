"""``Store``: what a service writes, and what other programs read of it.

Every method is synchronous and may be called from any thread. Database errors are ``StoreError``:
the service continues without a store, and counts what was lost.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    translating_errors,
    writing,
)
from holdfast.plugins.store.records import (
    Claim,
    Event,
    Feedback,
    RequestOutcome,
    StoredPrediction,
    StoredRequest,
    StoredRow,
    StoredText,
)

By = Literal["request", "user", "who", "label"]
# The name of a fact for each deletion that is not scrubbed yet begins with this.
PENDING_SCRUB = "scrub-"
# The records that the store numbers on arrival, and their tables.
NUMBERED = {Feedback: tables.feedback, RequestOutcome: tables.outcomes, Event: tables.events}
Numbered = TypeVar("Numbered", Feedback, RequestOutcome, Event)
# Below the number of variables that SQLite accepts in one statement.
MAX_VARIABLES = 10_000
REQUESTS_PER_PAGE = 500
# After this time every response of a service is written or lost [s].
WRITE_DELAY_S = 3600.0


class Store:
    """The store at ``where``: an SQLite file or a URL. ``open_store`` creates one.

    Several processes may use one store. A file that is deleted or replaced while in use is created
    again (``remade`` counts that): open connections would otherwise write to a file without a name.
    """

    def __init__(self, where: str, engine: Engine) -> None:
        self._where = where
        self._engine = engine
        # A store that nobody closed leaves no open connection to the garbage collector.
        weakref.finalize(self, engine.dispose)
        self._path = file_of(where)
        self._inode = self._file_identity()
        self._lock = threading.Lock()
        self.remade = 0

    @property
    def name(self) -> str:
        """Its location, without a password."""
        return mask_password(self._where)

    def close(self) -> None:
        """Close the connections, after scrubbing deleted data where that is pending."""
        self.scrub_if_due()
        self._engine.dispose()

    # What a service writes.

    def add_requests(self, requests: Sequence[StoredRequest]) -> None:
        """Add calls with their predictions, and their texts where they are stored; all or none.
        Requests that were deleted in the meantime are skipped."""
        with self._writing() as connection:
            deleted = _deleted_requests(connection, [one.id for one in requests])
            user_deletions = _user_deletions(connection, {one.user for one in requests if one.user})
            calls = [
                one
                for one in requests
                if one.id not in deleted and one.at > user_deletions.get(one.user or "", one.at - 1)
            ]
            _add_calls(connection, calls)
            predictions = [(one.id, each) for one in calls for each in one.predictions]
            _add_parts(connection, tables.answers, predictions)
            texts = [(one.id, each) for one in calls for each in one.texts]
            _add_parts(connection, tables.texts, texts)

    def add_predictions(self, request: str, predictions: Sequence[StoredPrediction]) -> None:
        """Add another model's predictions to a stored request."""
        with self._writing() as connection:
            if not _deleted_requests(connection, [request]):
                _add_parts(connection, tables.answers, [(request, one) for one in predictions])

    def add_feedback(self, feedback: Feedback, request: StoredRequest | None = None) -> Feedback:
        """Add one label and return the record with its number. It is on disk when this returns,
        together with its ``request`` where that is not written yet, since a user's labels are found
        through the user's requests. Raises ``DataError`` where the request was deleted."""
        with self._writing() as connection:
            _require_request(connection, feedback.request, "label", request)
            return replace(feedback, id=_append(connection, feedback))

    def add_outcome(
        self, outcome: RequestOutcome, request: StoredRequest | None = None
    ) -> RequestOutcome:
        """Add the outcome of a request; as ``add_feedback``."""
        with self._writing() as connection:
            _require_request(connection, outcome.request, "outcome", request)
            return replace(outcome, id=_append(connection, outcome))

    def append(self, event: Event) -> Event:
        """Add an event of the service; return the record with its number."""
        with self._writing() as connection:
            return replace(event, id=_append(connection, event))

    def save_state(self, name: str, body: Mapping[str, Any], at: float) -> None:
        """Save ``body`` under a name, replacing what was saved there."""
        values = {"at": at, "body": dict(body)}
        insert = _insert(self._engine)(tables.states).values(name=name, **values)
        self._write(insert.on_conflict_do_update(index_elements=["name"], set_=values))

    # What others read.

    def state(self, name: str) -> dict[str, Any] | None:
        """What was last saved under a name; ``None`` where nothing was."""
        rows = self._read(select(tables.states.c.body).where(tables.states.c.name == name))
        return dict(rows[0].body) if rows else None

    def request(self, id: str) -> StoredRequest | None:
        """A call with its predictions and texts; ``None`` where it does not exist."""
        matches = self.requests(ids=[id])
        return matches[0] if matches else None

    def requests(
        self,
        *,
        ids: Sequence[str] | None = None,
        after: str = "",
        since: float | None = None,
        limit: int = 1000,
    ) -> list[StoredRequest]:
        """Calls in the order of their ids, after the id ``after``, with their predictions and
        texts: those of ``ids``, or those sent at ``since`` or later."""
        table = tables.requests
        query = select(table).where(table.c.id > after).order_by(table.c.id).limit(limit)
        if ids is not None:
            query = query.where(table.c.id.in_(list(ids)))
        if since is not None:
            query = query.where(table.c.at >= since)
        requests = {row.id: StoredRequest(**_columns_of(row)) for row in self._read(query)}
        predictions: dict[str, list[StoredPrediction]] = {one: [] for one in requests}
        stored_texts: dict[str, list[StoredText]] = {one: [] for one in requests}
        answers, texts = tables.answers, tables.texts
        columns = answers.c
        order = columns.index, columns.shown.desc(), columns.model
        parts_query = select(answers).where(columns.request.in_(list(requests))).order_by(*order)
        for row in self._read(parts_query):
            predictions[row.request].append(StoredPrediction(**_columns_of(row, "request")))
        parts_query = (
            select(texts).where(texts.c.request.in_(list(requests))).order_by(texts.c.index)
        )
        for row in self._read(parts_query):
            stored_texts[row.request].append(StoredText(**_columns_of(row, "request")))
        return [
            replace(one, predictions=tuple(predictions[id]), texts=tuple(stored_texts[id]))
            for id, one in requests.items()
        ]

    def requests_by_id(self, ids: Iterable[str]) -> Iterator[StoredRequest]:
        """The calls with these ids in the order of their ids, read some hundreds at a time."""
        ordered = sorted(set(ids))
        for start in range(0, len(ordered), REQUESTS_PER_PAGE):
            yield from self.requests(ids=ordered[start : start + REQUESTS_PER_PAGE])

    def stored_rows(self, limit: int = 5000) -> list[StoredRow]:
        """The newest rows whose text is stored, newest first, each with the prediction that was
        returned."""
        columns = tables.texts.c
        newest = _stored_rows_query().order_by(columns.request.desc(), columns.index).limit(limit)
        return [_stored_row(one) for one in self._read(newest)]

    def stored_row(self, request: str, index: int) -> StoredRow | None:
        """One such row; ``None`` where its text is not stored."""
        columns = tables.texts.c
        rows = self._read(
            _stored_rows_query().where(columns.request == request, columns.index == index)
        )
        return _stored_row(rows[0]) if rows else None

    def feedback_by(self, who: str, *, source: str) -> list[Feedback]:
        """The labels of one annotator from one source, in order of arrival."""
        columns = tables.feedback.c
        return self._in_order(Feedback, columns.who == who, columns.source == source)

    def feedback_of(self, request: str, index: int) -> list[Feedback]:
        """The labels of one row, in order of arrival."""
        columns = tables.feedback.c
        return self._in_order(Feedback, columns.request == request, columns.index == index)

    def feedback(self, *, after: int = 0, limit: int | None = 10_000) -> list[Feedback]:
        """Labels in order of arrival, after number ``after``; ``limit=None``: all."""
        return self._in_order(Feedback, tables.feedback.c.id > after, limit=limit)

    def outcomes(self, *, after: int = 0, limit: int = 10_000) -> list[RequestOutcome]:
        """Outcomes of requests, in order of arrival, after number ``after``."""
        return self._in_order(RequestOutcome, tables.outcomes.c.id > after, limit=limit)

    def events(
        self, kind: str | None = None, *, after: int = 0, limit: int | None = 1000
    ) -> list[Event]:
        """Events of the service, oldest first, after number ``after``; of one kind or of all; at
        most ``limit``, or every one (``None``)."""
        columns = tables.events.c
        conditions = [] if kind is None else [columns.kind == kind]
        return self._in_order(Event, columns.id > after, *conditions, limit=limit)

    def newest_events(self, limit: int = 1000) -> list[Event]:
        """The last events of the service, oldest first."""
        newest = select(tables.events).order_by(tables.events.c.id.desc()).limit(limit)
        rows = self._read(newest)
        return [Event(**_columns_of(row)) for row in reversed(rows)]

    def calls(self, since: float, limit: int) -> list[tuple[float, int, float, str]]:
        """Time, number of rows, duration [s] and model of the calls at ``since`` or later, newest
        first."""
        columns = tables.requests.c
        query = select(columns.at, columns.rows, columns.seconds, columns.model).where(
            columns.at >= since
        )
        rows = self._read(query.order_by(columns.at.desc()).limit(limit))
        return [(row.at, row.rows, row.seconds, row.model) for row in rows]

    def states(self, beginning: str) -> dict[str, dict[str, Any]]:
        """Everything that was last saved under names with this beginning."""
        columns = tables.states.c
        rows = self._read(select(columns.name, columns.body).order_by(columns.name))
        return {row.name: dict(row.body) for row in rows if row.name.startswith(beginning)}

    def count_feedback(self) -> int:
        """The number of labels."""
        return int(self._read(select(func.count()).select_from(tables.feedback))[0][0])

    def last_feedback(self) -> int:
        """The number of the newest label; 0 where there is none."""
        return int(self._read(select(func.max(tables.feedback.c.id)))[0][0] or 0)

    def select(self, statement: Any) -> list[Any]:
        """The rows of a statement over ``plugins.store.tables``, for queries without a method."""
        return self._read(statement)

    # What goes away.

    def delete(self, at: float, *, by: By, value: str) -> dict[str, int]:
        """Delete everything of a request, of a user (by the stored hash), of an annotator
        (``who``), or one label by its number; return the number of deleted rows by table.

        The event that remains records the time, the kind of deletion and the counts, and names
        nobody. A tombstone keeps a deleted request from coming back. The bytes are erased from the
        file as soon as no reader blocks that: see ``scrub``.
        """
        with self._writing() as connection:
            conditions = _deletion_conditions(by, value)
            buried: list[tuple[str, str]] = []
            if "requests" in conditions:
                ids = select(tables.requests.c.id).where(conditions["requests"])
                request_ids = connection.execute(ids).scalars().all()
                buried = [
                    ("request", one) for one in {*request_ids, *([value] * (by == "request"))}
                ]
            gone = {}
            for name, condition in conditions.items():
                outcome = connection.execute(delete(tables.metadata.tables[name]).where(condition))
                gone[name] = outcome.rowcount
            if by == "user":
                # Blocks requests that other processes have not written yet; removed after an hour.
                buried.append(("user", value))
            _add_tombstones(connection, buried, at)
            _erase(connection)
            body = {"by": by, "gone": gone}
            connection.execute(tables.events.insert().values(kind="deletion", at=at, body=body))
        self.scrub()
        return gone

    def expire(self, now: float) -> int:
        """Delete texts whose time is over, those of labels included; return the number. Predictions
        and labels stay."""
        texts, labels = tables.texts, tables.feedback
        with self._writing() as connection:
            expired = delete(texts).where(texts.c.expires_at <= now)
            n_deleted = connection.execute(expired).rowcount
            clear_rows = (
                update(labels).where(labels.c.expires_at <= now).values(row=null(), expires_at=None)
            )
            n_deleted += connection.execute(clear_rows).rowcount
            if n_deleted:
                _erase(connection)
            columns = tables.tombstones.c
            old = (columns.kind == "user") & (columns.at < now - WRITE_DELAY_S)
            connection.execute(delete(tables.tombstones).where(old))
        self.scrub_if_due()
        return n_deleted

    def scrub_if_due(self) -> None:
        """Scrub where it is pending, whichever process left it so. Where the store cannot be used,
        the next process that opens it scrubs."""
        with contextlib.suppress(StoreError):
            if self.pending_scrubs():
                self.scrub(0.1)

    def pending_scrubs(self) -> list[str]:
        """The marks of deletions whose bytes may still be in the store's files. They are stored
        with the deletion, so that they survive the end of any process."""
        name = tables.facts.c.name
        return [one.name for one in self._read(select(name).where(name.like(f"{PENDING_SCRUB}%")))]

    def scrub(self, patience_s: float = 2.0) -> bool:
        """Empty the SQLite file in which deleted data could remain; in PostgreSQL, free the space.
        ``False`` where a reader blocks it for longer than ``patience_s``: it then stays pending
        until the store is next opened, closed or expired."""
        owed, busy = self.pending_scrubs(), False
        with translating_errors(self._where), self._engine.connect() as connection:
            autocommit = connection.execution_options(isolation_level="AUTOCOMMIT")
            if connection.dialect.name == "sqlite":
                autocommit.exec_driver_sql(f"PRAGMA busy_timeout={int(1000 * patience_s)}")
                busy = bool(autocommit.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0])
                autocommit.exec_driver_sql(f"PRAGMA busy_timeout={int(1000 * PATIENCE)}")
            elif connection.dialect.name == "postgresql":
                for name in ("texts", "feedback", "answers", "requests"):
                    autocommit.exec_driver_sql(f"VACUUM {name}")
        if owed and not busy:
            # Only the marks read before: a deletion in the meantime is still pending.
            with self._writing() as connection:
                connection.execute(delete(tables.facts).where(tables.facts.c.name.in_(owed)))
        return not busy

    # Who labels what, now.

    def claim(self, request: str, index: int, who: str, now: float, until: float) -> bool:
        """Reserve a row for ``who`` until the given time; ``False`` where another annotator has it.
        Of two simultaneous claims one succeeds, in whichever process."""
        table = tables.claims
        with self._writing() as connection:
            insert = _insert(connection)(table).values(
                request=request, index=index, who=who, until=until, seen=False
            )
            free = (table.c.until <= now) | (table.c.who == who)
            # An annotator who returns to a row has still seen the prediction.
            keep_seen = and_(table.c.who == who, table.c.seen)
            upsert = insert.on_conflict_do_update(
                index_elements=["request", "index"],
                set_={"who": who, "until": until, "seen": keep_seen},
                where=free,
            )
            return connection.execute(upsert.returning(table.c.who)).scalar() == who

    def mark_seen(self, request: str, index: int, who: str) -> None:
        """Record that ``who`` has seen the model's prediction of a claimed row."""
        claimed = _claimed_by(tables.claims, request, index, who)
        self._write(tables.claims.update().where(claimed).values(seen=True))

    def release(self, request: str, index: int, who: str) -> None:
        """Release a row that ``who`` had claimed."""
        self._write(tables.claims.delete().where(_claimed_by(tables.claims, request, index, who)))

    def claims(self, now: float) -> list[Claim]:
        """The claims that are valid now."""
        rows = self._read(select(tables.claims).where(tables.claims.c.until > now))
        return [Claim(**_columns_of(row)) for row in rows]

    def skip(self, request: str, index: int, who: str, at: float) -> None:
        """Record that ``who`` skipped this row."""
        values = {"request": request, "index": index, "who": who, "at": at}
        self._write(_insert(self._engine)(tables.skips).values(**values).on_conflict_do_nothing())

    def unskip(self, request: str, index: int, who: str) -> None:
        """Undo a skip."""
        self._write(tables.skips.delete().where(_claimed_by(tables.skips, request, index, who)))

    def skipped(self) -> list[tuple[str, int, str, float]]:
        """Request, index, annotator and time of each skip, oldest first."""
        rows = self._read(select(tables.skips).order_by(tables.skips.c.at))
        return [(row.request, row.index, row.who, row.at) for row in rows]

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """One transaction that writes everything or nothing."""
        self._require_file()
        with translating_errors(self._where), writing(self._engine) as connection:
            yield connection

    def _write(self, statement: Any) -> None:
        """Execute one statement in its own transaction."""
        with self._writing() as connection:
            connection.execute(statement)

    def _read(self, statement: Any) -> list[Any]:
        self._require_file()
        with translating_errors(self._where), self._engine.connect() as connection:
            return list(connection.execute(statement))

    def _in_order(
        self, record: type[Numbered], *where: Any, limit: int | None = None
    ) -> list[Numbered]:
        """Records in the order of their numbers."""
        table = NUMBERED[record]
        query = select(table).where(*where).order_by(table.c.id).limit(limit)
        return [record(**_columns_of(row)) for row in self._read(query)]

    def _file_identity(self) -> tuple[int, int] | None:
        if self._path is None:
            return None
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_dev, stat.st_ino

    def _require_file(self) -> None:
        if self._path is None or self._file_identity() == self._inode is not None:
            return
        with self._lock:
            if self._file_identity() == self._inode is not None:
                return
            self._engine.dispose()
            make_tables(self._engine, self._where)
            self._inode = self._file_identity()
            self.remade += 1


def open_store(where: str, *, make: bool = True) -> Store:
    """Open the store in a file or at a URL, and create it where it does not exist, unless ``make``
    is false; see ``open_database``. Data that an earlier process could not erase is erased now,
    where no reader blocks that."""
    path = file_of(where)
    if not make and path is not None and not path.is_file():
        raise StoreError(str(path), "was not found", None, "Name the store of the service.")
    store = Store(where, open_database(where))
    store.scrub_if_due()
    return store


def _stored_rows_query() -> Any:
    texts, answers, calls = tables.texts, tables.answers, tables.requests
    same = and_(answers.c.request == texts.c.request, answers.c.index == texts.c.index)
    return (
        select(texts.c.row, texts.c.vector, texts.c.expires_at, answers, calls.c.at)
        .join(answers, and_(same, answers.c.shown))
        .join(calls, calls.c.id == texts.c.request)
    )


def _stored_row(row: Any) -> StoredRow:
    prediction = StoredPrediction(
        **_columns_of(row, "request", "row", "vector", "expires_at", "at")
    )
    return StoredRow(
        row.request, row.index, row.at, row.row, prediction, row.vector, row.expires_at
    )


def _claimed_by(table: Any, request: str, index: int, who: str) -> Any:
    columns = table.c
    return (columns.request == request) & (columns.index == index) & (columns.who == who)


def _deletion_conditions(by: By, value: str) -> dict[str, Any]:
    """The rows of each table to delete, as a condition."""
    if by == "label":
        return {"feedback": tables.feedback.c.id == int(value)}
    if by == "who":
        return {
            name: tables.metadata.tables[name].c.who == value
            for name in ("feedback", "claims", "skips")
        }
    request_column = tables.requests.c.id if by == "request" else tables.requests.c.user
    names = ("texts", "answers", "feedback", "outcomes", "claims", "skips")
    ids = select(tables.requests.c.id).where(request_column == value)
    conditions = {}
    for name in names:
        column = tables.metadata.tables[name].c.request
        conditions[name] = column == value if by == "request" else column.in_(ids)
    # Last, since the others are found through it.
    return {**conditions, "requests": request_column == value}


def _deleted_requests(connection: Connection, requests: Sequence[str]) -> set[str]:
    columns, deleted = tables.tombstones.c, set[str]()
    for start in range(0, len(requests), MAX_VARIABLES):
        in_part = columns.key.in_(requests[start : start + MAX_VARIABLES])
        keys = select(columns.key).where(columns.kind == "request", in_part)
        deleted |= set(connection.execute(keys).scalars())
    return deleted


def _require_request(
    connection: Connection, request: str, record_name: str, request_record: StoredRequest | None
) -> None:
    """Make sure that a request is in the store; ``request_record`` is written where it is missing.
    Raises ``DataError`` where the request was deleted, or the data of its user were."""
    is_deleted = bool(_deleted_requests(connection, [request]))
    if request_record is not None and request_record.user:
        is_deleted = (
            is_deleted
            or _user_deletions(connection, {request_record.user}).get(
                request_record.user, request_record.at - 1
            )
            >= request_record.at
        )
    if is_deleted:
        rule = f"was deleted and accepts no {record_name}"
        remedy = f"Send the request again, and give the {record_name} of the new response."
        raise DataError(f"the request {request}", rule, None, remedy)
    if request_record is not None:
        _add_calls(connection, [request_record])


def _add_calls(connection: Connection, calls: Sequence[StoredRequest]) -> None:
    """Add requests; one that was already added with its label is skipped."""
    if calls:
        once = _insert(connection)(tables.requests).on_conflict_do_nothing()
        names = ("id", "at", "model", "rows", "seconds", "user")
        connection.execute(once, [{name: getattr(one, name) for name in names} for one in calls])


def _user_deletions(connection: Connection, users: set[str]) -> dict[str, float]:
    """When the data of these users were last deleted."""
    columns = tables.tombstones.c
    query = select(columns.key, columns.at).where(
        columns.kind == "user", columns.key.in_(sorted(users)[:MAX_VARIABLES])
    )
    return {row.key: row.at for row in connection.execute(query)} if users else {}


def _add_tombstones(connection: Connection, entries: Sequence[tuple[str, str]], at: float) -> None:
    if entries:
        insert = _insert(connection)(tables.tombstones)
        insert = insert.on_conflict_do_update(
            index_elements=["kind", "key"], set_={"at": insert.excluded.at}
        )
        connection.execute(insert, [{"kind": kind, "key": key, "at": at} for kind, key in entries])


def _erase(connection: Connection) -> None:
    """After a deletion: remove texts from events (``{"row": "REQUEST/INDEX", "text": …}``) that are
    no longer stored with their request, and record that the bytes are still to be erased from the
    files."""
    events, texts = tables.events, tables.texts.c
    query = select(events.c.id, events.c.body).where(cast(events.c.body, String).like('%"text"%'))
    for event in connection.execute(query).all():
        text_records = [
            one for one in _mappings_within(event.body) if "text" in one and "row" in one
        ]
        for one in text_records:
            request, _, index = str(one["row"]).rpartition("/")
            row_index = int(index) if index.isdigit() else -1
            text_query = select(texts.index).where(
                texts.request == request, texts.index == row_index
            )
            if connection.execute(text_query).first() is None:
                del one["text"]
        if any("text" not in one for one in text_records):
            changed = events.update().where(events.c.id == event.id).values(body=event.body)
            connection.execute(changed)
    owed = {"name": f"{PENDING_SCRUB}{secrets.token_hex(8)}", "value": True}
    connection.execute(tables.facts.insert().values(owed))


def _mappings_within(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping within a JSON value, however deep."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for one in value if isinstance(value, list) else ():
        yield from _mappings_within(one)


def _insert(connection: Connection | Engine) -> Any:
    """``INSERT`` with conflict handling, which both databases support."""
    return {"sqlite": sqlite, "postgresql": postgresql}[connection.dialect.name].insert


def _add_parts(
    connection: Connection, table: Table, parts: Sequence[tuple[str, StoredPrediction | StoredText]]
) -> None:
    """Add predictions or texts that belong to requests, with the request ids."""
    if parts:
        rows = [{"request": request, **asdict(part)} for request, part in parts]
        connection.execute(table.insert(), rows)


def _append(connection: Connection, record: Feedback | RequestOutcome | Event) -> int:
    """Write a record and return its number."""
    table = NUMBERED[type(record)]
    values = {name: value for name, value in asdict(record).items() if name != "id"}
    inserted = connection.execute(table.insert().values(values).returning(table.c.id))
    return int(inserted.scalar_one())


def _columns_of(row: Any, *without: str) -> dict[str, Any]:
    return {name: value for name, value in row._mapping.items() if name not in without}
