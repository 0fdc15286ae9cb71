"""The challenger's answers: after the shown ones are out, by a thread of its own, and only while
nobody waits for the shown model.

What it cannot keep up with is left out by whole requests before anything is known of its answers,
so that what was compared is no worse a sample of the traffic for it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from holdfast.core.errors import HoldfastError, StoreError
from holdfast.plugins.service.afterwards import Queue
from holdfast.plugins.service.records import Full, Late, RowPrediction, Served, ServiceEngine
from holdfast.plugins.service.row_privacy import masked_said
from holdfast.plugins.store.records import StoredPrediction
from holdfast.plugins.store.store import Store

# Rows that the challenger is asked at once: so long at most does a shown answer share the machine
# with it.
CHUNK = 4
MOST_ROWS = 5_000
PAUSE_S, LONGEST_PAUSE_S, IDLE_S = 0.002, 0.05, 1.0


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
        self._challenger, self._store, self._busy, self._log = challenger, store, busy, log
        self._patience_s, self._mask = patience_s, mask
        self._queue: Queue[tuple[float, Served]] = Queue(MOST_ROWS)
        self.asked = self.failed = self.lost = self._given_up = 0
        self._told: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="challenger", daemon=True)
        self._thread.start()

    def put(self, served: Served) -> None:
        """Have the challenger asked, if there is room."""
        self._queue.put((time.monotonic(), served), len(served.rows))

    @property
    def waiting(self) -> int:
        """Rows that the challenger was not asked yet."""
        return self._queue.rows

    @property
    def dropped(self) -> int:
        """Requests that were left out."""
        return self._queue.dropped + self._given_up

    def figures(self) -> dict[str, int]:
        """Its counters."""
        names = ("asked", "dropped", "failed", "lost", "waiting")
        return {name: getattr(self, name) for name in names}

    def close(self, within_s: float = 1.0) -> None:
        """Ask nothing more."""
        self._queue.close()
        self._given_up += len(self._queue.take(len(self._queue), 0))
        self._thread.join(within_s)

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            while (one := self._next()) is not None:
                try:
                    said = runner.run(self._said(one))
                except _NoTime:
                    self._given_up += 1
                except Exception as error:
                    # Even a defect of the challenger must not end the comparison in silence.
                    self.failed += 1
                    self._tell("failed", "the challenger did not answer", error)
                else:
                    self.asked += 1
                    try:
                        # As what the shown model said is written: the two are compared.
                        said = masked_said(said) if self._mask else said
                        self._store.add_said(one.request, said)
                    except StoreError as error:
                        self.lost += 1
                        self._tell("lost", "the challenger's answers could not be stored", error)

    def _next(self) -> Served | None:
        while not self._queue.closed:
            for since, served in self._queue.take(1, IDLE_S):
                self._until = since + self._patience_s
                if time.monotonic() <= self._until and not self._queue.closed:
                    return served
                self._given_up += 1
        return None

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
        if self._queue.closed or time.monotonic() + seconds > self._until:
            raise _NoTime
        await asyncio.sleep(seconds)

    def _tell(self, kind: str, what: str, error: Exception) -> None:
        """Once a kind: a fault that stays would fill the log."""
        if kind not in self._told:
            self._told.add(kind)
            # What a defect says may hold a text.
            known = isinstance(error, HoldfastError)
            self._log(f"{what}: {error if known else type(error).__name__}")


class _NoTime(Exception):
    """The request has waited too long, or the service ends."""
