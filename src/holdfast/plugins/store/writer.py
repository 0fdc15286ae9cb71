"""Writing to the store in a thread of its own, so that no answer waits for a disk."""

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

# How much waits at most: requests, rows of requests, and bytes of their texts.
MAX_REQUESTS = 10_000
MAX_ROWS = 200_000
MAX_BYTES = 64_000_000
# So many rows are one transaction, and so long it is gathered [s].
BATCH_ROWS = 2_000
GATHER_S = 0.05
# How long to wait before another try [s]: the first time, and at most.
FIRST_WAIT, MAX_WAIT = 0.1, 5.0
EXPIRE_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class WriteCounts:
    """What became of requests: ``written``, still ``waiting``, ``lost`` for want of room or time,
    ``refused`` by the database; ``failures`` of the store so far, ``away`` while it is gone, and
    what it said ``last``; ``expired`` texts."""

    written: int = 0
    waiting: int = 0
    lost: int = 0
    refused: int = 0
    failures: int = 0
    away: bool = False
    last: str | None = None
    expired: int = 0


class StoreWriter:
    """Takes requests at once and writes them in order, many in a transaction.

    Where the store is locked, full or gone, up to ``MAX_REQUESTS`` wait (and as many rows and
    bytes of text as the limits above say); what comes beyond is lost and counted. It comes back by
    itself, and an event ``store`` then says from when to when how many were lost. A record that
    the database does not take costs none but itself. Texts expire here too, once a minute.

    ``say`` hears one line where the store goes and where it comes back; ``prepare`` makes of each
    request what is written of it (without personal data, say), in the thread.
    """

    def __init__(
        self,
        store: Store,
        log: Callable[[str], None] = lambda _: None,
        *,
        max_requests: int = MAX_REQUESTS,
        prepare: Callable[[StoredRequest], StoredRequest] = lambda request: request,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._log = log
        self._max_requests = max_requests
        self._prepare = prepare
        self._clock = clock
        self._waiting: deque[StoredRequest] = deque()
        self._rows = self._bytes = 0
        self._counts = {"written": 0, "lost": 0, "refused": 0, "failures": 0, "expired": 0}
        self._last: str | None = None
        self._away = False
        # When it went, or the first request was lost that no event tells of yet.
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
        """Have it written soon; ``False`` where it is lost since too much waits. Never blocks."""
        rows, size = _row_count(request), _request_bytes(request)
        with self._changed:
            has_room = (
                len(self._waiting) < self._max_requests
                and (self._rows + rows <= MAX_ROWS or not self._waiting)
                and (self._bytes + size <= MAX_BYTES or not self._waiting)
            )
            if self._closing or not has_room:
                self._counts["lost"] += 1
                self._since = self._clock() if self._since is None else self._since
                return False
            self._waiting.append(request)
            self._rows += rows
            self._bytes += size
            # The thread wakes by itself a moment later: a signal for each would cost each answer.
            if len(self._waiting) == 1:
                self._changed.notify_all()
            return True

    def counts(self) -> WriteCounts:
        """What became of requests so far."""
        with self._changed:
            waiting = len(self._waiting)
            return WriteCounts(waiting=waiting, away=self._away, last=self._last, **self._counts)

    def flush(self, timeout: float) -> bool:
        """Wait until everything that was put is written, or lost; whether it is, in time [s]."""
        with self._changed:
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout)

    def close(self, timeout: float = 10.0) -> int:
        """Write what waits, for so long [s], and end; how many requests were lost with the end."""
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
        """The next ones, which stay in their place until they are written."""
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
            # A close that ran out of time has counted them as lost.
            for one in batch:
                if not self._waiting or self._waiting[0] is not one:
                    return
                self._waiting.popleft()
                self._rows -= _row_count(one)
                self._bytes -= _request_bytes(one)
            self._counts["written"] += n_written
            self._counts["refused"] += n_refused

    def _write_or_split(self, batch: list[StoredRequest]) -> tuple[int, int]:
        """How many were written, and how many the database does not take, whatever is tried."""
        try:
            self._store.add_requests([self._prepare(one) for one in batch])
        except StoreGone:
            raise
        except InputError as error:
            if len(batch) == 1:
                self._last = _one_line(error)
                return 0, 1
            half = len(batch) // 2
            first, second = self._write_or_split(batch[:half]), self._write_or_split(batch[half:])
            return first[0] + second[0], first[1] + second[1]
        return len(batch), 0

    def _expire(self) -> None:
        now = self._clock()
        if now >= self._expire_at:
            expired = self._store.expire(now)
            self._expire_at = now + EXPIRE_EVERY_S
            with self._changed:
                self._counts["expired"] += expired

    def _record_failure(self, error: Exception) -> None:
        with self._changed:
            self._counts["failures"] += 1
            self._last = _one_line(error)
            if self._away:
                return
            self._away = True
            self._since = self._clock() if self._since is None else self._since
        self._log(f"the store is gone, answers go on: {self._last}")

    def _report_recovery(self) -> None:
        if self._store.remade > self._remade:
            self._remade = self._store.remade
            self._log("the store's file was deleted or replaced: what stood in it is not here")
        with self._changed:
            since, lost, away = self._since, self._counts["lost"] - self._lost_told, self._away
        if since is None:
            return
        now = self._clock()
        self._store.append(Event("store", now, {"from": since, "until": now, "lost": lost}))
        with self._changed:
            self._away, self._since = False, None
            self._lost_told += lost
        message = "the store is back" if away else "the store could not keep up"
        self._log(f"{message}; requests lost meanwhile: {lost}")


def _one_line(error: Exception) -> str:
    return printable(" ".join(str(error).split()), 300)


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
