"""Write to the store in a separate thread, so that no response waits for a disk."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.core.errors import InputError, StoreGone
from holdfast.core.printable import printable
from holdfast.plugins.store.records import Event, StoredRequest

if TYPE_CHECKING:
    from holdfast.plugins.store.store import Store

# Limits of the queue: requests, rows of requests, and bytes of their texts.
MAX_REQUESTS = 10_000
MAX_ROWS = 200_000
MAX_BYTES = 64_000_000
# The rows of one transaction, and how long they are gathered [s].
BATCH_ROWS = 2_000
GATHER_S = 0.05
# How long to wait before a retry [s]: the first time, and at most.
FIRST_WAIT, MAX_WAIT = 0.1, 5.0
EXPIRE_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class WriteCounts:
    """What happened to requests: ``written``, still ``waiting``, ``lost`` because the queue was
    full or time ran out, ``refused`` by the database. Also the ``failures`` of the store so far,
    and ``away`` while it cannot be reached."""

    written: int = 0
    waiting: int = 0
    lost: int = 0
    refused: int = 0
    failures: int = 0
    away: bool = False


class StoreWriter:
    """Accepts requests at once and writes them in order, many in one transaction.

    While the store is locked, full or unreachable, up to ``MAX_REQUESTS`` requests wait (with the
    limits above on rows and bytes of text); further requests are lost and counted. Writing resumes
    by itself, and an event ``store`` then records the period and the number of lost requests. A
    record that the database rejects is skipped by itself. Texts are also expired here, once a
    minute.

    ``log`` receives one line when the store becomes unreachable and one when it is back.
    ``prepare`` turns each request into what is written of it (without personal data, for example),
    in the thread.
    """

    def __init__(
        self,
        store: Store,
        log: Callable[[str], None] = lambda _: None,
        *,
        prepare: Callable[[StoredRequest], StoredRequest] = lambda request: request,
    ) -> None:
        self._store = store
        self._log = log
        self._prepare = prepare
        self._waiting: deque[StoredRequest] = deque()
        self._rows = self._bytes = 0
        self._counts = {"written": 0, "lost": 0, "refused": 0, "failures": 0}
        self._away = False
        # When the store became unreachable, or the first request was lost that no event reports.
        self._since: float | None = None
        self._lost_told = 0
        self._changed = threading.Condition()
        self._closing = False
        self._busy = False
        self._expire_at = 0.0
        self._remade = store.remade
        self._thread = threading.Thread(target=self._run, name="store writer", daemon=True)
        self._thread.start()

    def add(self, request: StoredRequest) -> bool:
        """Queue a request; ``False`` where it is lost because the queue is full. Never blocks."""
        rows, size = _row_count(request), _request_bytes(request)
        with self._changed:
            has_room = (
                len(self._waiting) < MAX_REQUESTS
                and (self._rows + rows <= MAX_ROWS or not self._waiting)
                and (self._bytes + size <= MAX_BYTES or not self._waiting)
            )
            if self._closing or not has_room:
                self._counts["lost"] += 1
                self._since = time.time() if self._since is None else self._since
                return False
            self._waiting.append(request)
            self._rows += rows
            self._bytes += size
            # The thread wakes by itself a moment later: a signal per request would slow responses.
            if len(self._waiting) == 1:
                self._changed.notify_all()
            return True

    def counts(self) -> WriteCounts:
        """What happened to the requests so far."""
        with self._changed:
            waiting = len(self._waiting)
            return WriteCounts(waiting=waiting, away=self._away, **self._counts)

    def flush(self, timeout: float) -> bool:
        """Wait until every queued request is written or lost; return whether that happened within
        ``timeout`` [s]."""
        with self._changed:
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout)

    def close(self, timeout: float = 10.0) -> int:
        """Write what is queued, for at most ``timeout`` [s], and stop; return the number of
        requests that were lost."""
        self.flush(timeout)
        with self._changed:
            self._closing = True
            n_lost = len(self._waiting)
            self._counts["lost"] += n_lost
            self._waiting.clear()
            self._rows = self._bytes = 0
            self._changed.notify_all()
        self._thread.join(timeout)
        return n_lost

    def _run(self) -> None:
        wait = FIRST_WAIT
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing, 1.0)
                if self._closing and not self._waiting:
                    return
                self._busy = True
            try:
                batch = self._next_batch()
                if batch:
                    self._write(batch)
                self._expire()
                self._report_recovery()
                wait = FIRST_WAIT
            except Exception as error:
                self._record_failure(error)
                with self._changed:
                    self._busy = False
                    self._changed.wait_for(lambda: self._closing, wait)
                wait = min(2 * wait, MAX_WAIT)
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _next_batch(self) -> list[StoredRequest]:
        """The next requests; they stay in the queue until they are written."""
        if not self._closing and self._waiting:
            time.sleep(GATHER_S)
        batch: list[StoredRequest] = []
        rows = 0
        with self._changed:
            for one in self._waiting:
                rows += _row_count(one)
                if batch and rows > BATCH_ROWS:
                    break
                batch.append(one)
        return batch

    def _write(self, batch: list[StoredRequest]) -> None:
        n_written, n_refused = self._write_or_split(batch)
        with self._changed:
            # A close that timed out has counted them as lost.
            for one in batch:
                if not self._waiting or self._waiting[0] is not one:
                    return
                self._waiting.popleft()
                self._rows -= _row_count(one)
                self._bytes -= _request_bytes(one)
            self._counts["written"] += n_written
            self._counts["refused"] += n_refused

    def _write_or_split(self, batch: list[StoredRequest]) -> tuple[int, int]:
        """How many requests were written, and how many the database rejects."""
        try:
            self._store.add_requests([self._prepare(one) for one in batch])
        except StoreGone:
            raise
        except InputError:
            if len(batch) == 1:
                return 0, 1
            half = len(batch) // 2
            first, second = self._write_or_split(batch[:half]), self._write_or_split(batch[half:])
            return first[0] + second[0], first[1] + second[1]
        return len(batch), 0

    def _expire(self) -> None:
        now = time.time()
        if now >= self._expire_at:
            self._store.expire(now)
            self._expire_at = now + EXPIRE_EVERY_S

    def _record_failure(self, error: Exception) -> None:
        with self._changed:
            self._counts["failures"] += 1
            if self._away:
                return
            self._away = True
            self._since = time.time() if self._since is None else self._since
        message = printable(" ".join(str(error).split()), 300)
        self._log(f"the store cannot be reached; requests are still answered: {message}")

    def _report_recovery(self) -> None:
        if self._store.remade > self._remade:
            self._remade = self._store.remade
            self._log("the store's file was deleted or replaced; its earlier records are missing")
        with self._changed:
            since, lost, away = self._since, self._counts["lost"] - self._lost_told, self._away
        if since is None:
            return
        now = time.time()
        self._store.append(Event("store", now, {"from": since, "until": now, "lost": lost}))
        with self._changed:
            self._away, self._since = False, None
            self._lost_told += lost
        message = "the store can be reached again" if away else "the store was too slow"
        self._log(f"{message}; requests that were not stored: {lost}")


def _row_count(request: StoredRequest) -> int:
    return 1 + max(len(request.predictions), len(request.texts))


def _request_bytes(request: StoredRequest) -> int:
    return sum(len(text.vector or b"") + _text_bytes(text.row) for text in request.texts)


def _text_bytes(value: object) -> int:
    if isinstance(value, Mapping):
        return sum(map(_text_bytes, value.values()))
    if isinstance(value, str):
        return 4 * len(value)
    if isinstance(value, (list, tuple)):
        return sum(map(_text_bytes, value))
    return 16
