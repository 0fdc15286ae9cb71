"""The challenger's answers: after the shown ones are out, by a thread of its own, and only while
nobody waits for the shown model.

What it cannot keep up with is left out by whole requests before anything is known of its answers,
so that what was compared is no worse a sample of the traffic for it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from holdfast.core.errors import HoldfastError, StoreError
from holdfast.plugins.service.records import Full, Late, RowPrediction, Served, ServiceEngine
from holdfast.plugins.service.row_privacy import masked_said
from holdfast.plugins.store.records import StoredPrediction
from holdfast.plugins.store.store import Store

# Rows that the challenger is asked at once: so long at most does a shown answer share the machine
# with it.
CHUNK = 4
MOST_ROWS = 5_000
PAUSE_S, LONGEST_PAUSE_S = 0.002, 0.05


class Shadowing:
    """Asks ``challenger`` what was ``served``, and writes what it says into the store.

    ``busy`` says whether somebody waits for the shown model; ``patience_s`` is after how long a
    request is left out. ``asked`` and ``dropped`` count requests, ``failed`` those on which the
    challenger had an error, ``lost`` those that the store did not take; ``mask``: without personal
    data in what it wrote.
    """

    def __init__(
        self,
        challenger: ServiceEngine,
        store: Store,
        busy: Callable[[], bool],
        patience_s: float = 20.0,
        log: Callable[[str], None] = lambda _: None,
        mask: bool = True,
    ) -> None:
        self._mask = mask
        self._challenger, self._store, self._busy, self._log = challenger, store, busy, log
        self._patience_s = patience_s
        self._queue: deque[tuple[float, Served]] = deque()
        self._there = threading.Condition()
        self._rows = 0
        self._closed = False
        self.asked = self.dropped = self.failed = self.lost = 0
        self._told: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="challenger", daemon=True)
        self._thread.start()

    def put(self, served: Served) -> None:
        """Have the challenger asked, if there is room."""
        with self._there:
            full = bool(self._queue) and self._rows + len(served.rows) > MOST_ROWS
            if self._closed or full:
                self.dropped += 1
                return
            self._queue.append((time.monotonic(), served))
            self._rows += len(served.rows)
            self._there.notify()

    @property
    def waiting(self) -> int:
        """Rows that the challenger was not asked yet."""
        return self._rows

    def figures(self) -> dict[str, int]:
        """Its counters."""
        return {
            "asked": self.asked,
            "dropped": self.dropped,
            "failed": self.failed,
            "lost": self.lost,
            "waiting": self.waiting,
        }

    def close(self, within_s: float = 1.0) -> None:
        """Ask nothing more."""
        with self._there:
            self._closed = True
            self.dropped += len(self._queue)
            self._queue.clear()
            self._rows = 0
            self._there.notify_all()
        self._thread.join(within_s)

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            while (one := self._next()) is not None:
                try:
                    said = runner.run(self._said(one))
                except _NoTime:
                    self.dropped += 1
                except Exception as error:
                    # Even a defect of the challenger must not end the comparison in silence.
                    self.failed += 1
                    self._tell("failed", "the challenger did not answer", error)
                else:
                    self.asked += 1
                    self._write(one.request, said)

    def _next(self) -> Served | None:
        while True:
            with self._there:
                while not self._queue and not self._closed:
                    self._there.wait()
                if self._closed:
                    return None
                since, served = self._queue.popleft()
                self._rows -= len(served.rows)
                if time.monotonic() - since > self._patience_s:
                    self.dropped += 1
                    continue
            self._until = since + self._patience_s
            return served

    async def _said(self, served: Served) -> tuple[StoredPrediction, ...]:
        found: list[RowPrediction] = []
        model = ""
        for start in range(0, len(served.rows), CHUNK):
            await self._free()
            answered = await self._ask(served.rows[start : start + CHUNK])
            found += answered.answers
            model = answered.model
        return tuple(
            StoredPrediction(
                place, model, a.prediction, a.confidence, a.probabilities, a.because, False
            )
            for place, a in enumerate(found)
        )

    async def _ask(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        while True:
            try:
                return await self._challenger.answer(rows, self._until)
            except Full as full:
                await self._pause(min(full.retry_after, LONGEST_PAUSE_S))
            except Late:
                raise _NoTime from None

    async def _free(self) -> None:
        pause = PAUSE_S
        while self._busy():
            await self._pause(pause)
            pause = min(LONGEST_PAUSE_S, 2 * pause)

    async def _pause(self, seconds: float) -> None:
        if self._closed or time.monotonic() + seconds > self._until:
            raise _NoTime
        await asyncio.sleep(seconds)

    def _write(self, request: str, said: tuple[StoredPrediction, ...]) -> None:
        try:
            # As what the shown model said is written: the two are compared.
            self._store.add_said(request, masked_said(said) if self._mask else said)
        except StoreError as error:
            self.lost += 1
            self._tell("lost", "the challenger's answers could not be stored", error)

    def _tell(self, kind: str, what: str, error: Exception) -> None:
        """Once a kind: a fault that stays would fill the log."""
        if kind not in self._told:
            self._told.add(kind)
            # What a defect says may hold a text.
            known = isinstance(error, HoldfastError)
            self._log(f"{what}: {error if known else type(error).__name__}")


class _NoTime(Exception):
    """The request has waited too long, or the service ends."""
