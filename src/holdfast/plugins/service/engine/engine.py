"""``ModelEngine``: requests of many clients, answered by one model in one thread.

The event loop reads small requests itself and hands large ones to a thread beside; all wait in one
``Line``. The model's thread takes a turn as soon as the last one is over, so that the next is
made of what came meanwhile, and hands all that are answered back to the loop in one call.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from holdfast.core.records import Floats
from holdfast.plugins.service.engine.line import (
    EngineTurn,
    Pace,
    QueueBounds,
    RequestQueue,
    Waiting,
)
from holdfast.plugins.service.engine.thread import ModelThread, Work
from holdfast.plugins.service.records import EngineFacts, Full, Late, RowPrediction, RowPredictions
from holdfast.plugins.store.records import Row
from holdfast.runs.predictor import Predictor

T = TypeVar("T")
# How long a turn is to take: newcomers wait for it, and large ones are a little quicker a row.
TURN_SECONDS = 0.05
# Below it a turn is not worth its beginning, however slow the model.
LEAST_TOKENS = 256
# A request comes again when what is not ready may be.
NOT_READY = 1.0


# A piece of work, done by the model's thread.
Alone = Callable[[Callable[[], float]], float]


class RowForm(Protocol):
    """How the rows of a task are read, asked and said."""

    def light(self, rows: Sequence[Row]) -> bool: ...

    def read(self, rows: Sequence[Row]) -> Any: ...

    def turn_tokens(self, wanted: int) -> int: ...

    def ask(self, turn: EngineTurn) -> int: ...

    def say(self, reads: Sequence[Any]) -> list[tuple[list[RowPrediction], Floats | None]]: ...

    def warm(self, alone: Alone) -> tuple[int, float]: ...


class ModelEngine:
    """An ``Engine`` (see ``plugins.service.records``) over a ``Form``.

    Several may share a ``thread``: one of a higher ``rank`` is asked when those of lower ranks have
    nothing. ``listeners`` hear of each turn its rows, its tokens and its seconds.
    """

    def __init__(
        self,
        form: RowForm,
        facts: EngineFacts,
        *,
        bounds: QueueBounds | None = None,
        thread: ModelThread | None = None,
        rank: int = 0,
        turn_seconds: float = TURN_SECONDS,
    ) -> None:
        self._form = form
        self._facts = facts
        self._line = RequestQueue(bounds)
        self._pace = Pace()
        self._lock = threading.Lock()
        self._thread = thread or ModelThread()
        self._reader = ThreadPoolExecutor(1, "reader")
        self._turn_seconds = turn_seconds
        self._ready = self._draining = False
        self._reading = 0
        self._open: set[asyncio.Future[Any]] = set()
        self._counts: dict[str, float] = dict.fromkeys(COUNTED, 0.0)
        self.listeners: list[Callable[[int, int, float], None]] = []
        # What else is asked of the model, by ``run`` alone.
        self.predictor: Predictor | None = None
        self._thread.add(self._take, rank)

    @property
    def facts(self) -> EngineFacts:
        return self._facts

    @property
    def use(self) -> Any:
        """What answers (``contract.inference.Answering``), for those who ask it by ``run``;
        ``None`` where rows pass another way."""
        return getattr(self._form, "use", None)

    @property
    def thread(self) -> ModelThread:
        """The model's thread, for an engine beside."""
        return self._thread

    @property
    def ready(self) -> bool:
        return self._ready and not self._draining

    def warm(self) -> None:
        # A pass at a time: whoever shares the thread goes on between them.
        tokens, seconds = self._form.warm(lambda job: self._thread.run(job).result())
        with self._lock:
            self._pace.add(tokens, seconds)
        self._ready = True

    async def run(self, job: Callable[[], T]) -> T:
        """Do something that needs the model alone, between two turns."""
        return await asyncio.wrap_future(self._thread.run(job))

    async def answer(self, rows: Sequence[Row], deadline: float | None = None) -> RowPredictions:
        until = math.inf if deadline is None else deadline
        read = await self._admitted(rows, until)
        if not read.costs:
            ((answers, vectors),) = self._form.say([read])
            self._counts["requests_total"] += 1
            return RowPredictions(tuple(answers), self._facts.model, vectors)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[RowPredictions] = loop.create_future()
        one = Waiting(read, read.costs, future, until)
        with self._lock:
            try:
                self._line.add(one, time.monotonic(), self._pace.seconds)
            except Full as full:
                raise self._full(full) from None
            except Late:
                if not len(self._line):
                    self._pace.doubt()
                raise
        self._open.add(future)
        timer = None
        if until < math.inf:
            timer = loop.call_later(max(0.0, until - time.monotonic()), self._be_late, one, future)
        self._thread.wake()
        try:
            return await future
        finally:
            # Cancelled or late: what is left of it costs no more time.
            one.gone = one.gone or not one.late
            self._open.discard(future)
            if timer is not None:
                timer.cancel()

    async def _admitted(self, rows: Sequence[Row], until: float) -> Any:
        """The rows as they are read. Raises ``Full`` before it costs any time, where it can be
        known."""
        if not self._ready or self._draining:
            because = "it is ending" if self._draining else "it is not ready yet"
            raise self._full(Full(NOT_READY, because))
        if until <= time.monotonic():
            raise Late
        with self._lock:
            try:
                self._line.refuse(len(rows) + self._reading, self._pace.seconds)
            except Full as full:
                raise self._full(full) from None
        if self._form.light(rows):
            return self._form.read(rows)
        self._reading += len(rows)
        loop = asyncio.get_running_loop()
        reading = loop.run_in_executor(self._reader, self._form.read, rows)
        self._open.add(reading)
        try:
            return await reading
        finally:
            self._reading -= len(rows)
            self._open.discard(reading)

    def _full(self, full: Full) -> Full:
        self._counts["refused_total"] += 1
        return full

    def _be_late(self, one: Waiting, future: asyncio.Future[Any]) -> None:
        if not future.done():
            one.late, one.deadline = True, -math.inf
            future.set_exception(Late())

    def _take(self) -> Work | None:
        """The next turn, for the model's thread."""
        with self._lock:
            pace = self._pace.seconds
            wanted = int(self._turn_seconds / pace) if pace else LEAST_TOKENS
            most = self._form.turn_tokens(max(LEAST_TOKENS, wanted))
            turn = self._line.take(time.monotonic(), most)
        return None if turn is None else lambda: self._answer(turn)

    def _answer(self, turn: EngineTurn) -> None:
        began = time.perf_counter()
        failed: dict[Waiting, Exception] = {}
        padded = 0
        try:
            padded = self._form.ask(turn)
        except Exception as error:
            failed = self._apart(turn, error)
        for one, places in turn.parts:
            one.answered += len(places)
        whole = [one for one, _ in turn.parts if one.answered == len(one.costs)]
        done = [one for one in whole if one not in failed]
        said: list[tuple[list[RowPrediction], Floats | None]] = []
        if done:
            try:
                said = self._form.say([one.read for one in done])
            except Exception as error:
                failed |= dict.fromkeys(done, error)
                done = []
        seconds = time.perf_counter() - began
        with self._lock:
            self._pace.add(turn.tokens, seconds)
            self._count(turn, padded, seconds, len(done), len(failed))
        for listener in self.listeners:
            with contextlib.suppress(Exception):
                listener(turn.rows, turn.tokens, seconds)
        self._settle(done, said, failed)

    def _apart(self, turn: EngineTurn, error: Exception) -> dict[Waiting, Exception]:
        """Ask each request of a turn that failed by itself; those that fail again, and how."""
        if len(turn.parts) == 1:
            return {turn.parts[0][0]: error}
        failed = {}
        for one, places in turn.parts:
            costs = one.costs[places.start : places.stop]
            try:
                self._form.ask(EngineTurn([(one, places)], sum(costs), len(costs)))
            except Exception as own:
                failed[one] = own
        return failed

    def _settle(
        self,
        done: Sequence[Waiting],
        said: Sequence[tuple[list[RowPrediction], Floats | None]],
        failed: dict[Waiting, Exception],
    ) -> None:
        """Hand results to those who wait, in one call of their loop."""
        name = self._facts.model
        results: list[tuple[asyncio.Future[Any], Any]] = [
            (one.caller, RowPredictions(tuple(answers), name, vectors))
            for one, (answers, vectors) in zip(done, said, strict=True)
        ]
        for one, error in failed.items():
            # Of its other rows none is asked.
            one.gone = True
            results.append((one.caller, error))
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
        for future, result in results:
            by_loop.setdefault(future.get_loop(), []).append((future, result))
        for loop, some in by_loop.items():
            # A loop that was closed meanwhile has nobody who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_deliver, some)

    def _count(self, turn: EngineTurn, padded: int, seconds: float, done: int, failed: int) -> None:
        counts = self._counts
        counts["turns_total"] += 1
        counts["rows_total"] += turn.rows
        counts["tokens_total"] += turn.tokens
        counts["padded_tokens_total"] += max(padded, turn.tokens)
        counts["model_seconds_total"] += seconds
        counts["requests_total"] += done
        counts["failed_total"] += failed

    def figures(self) -> dict[str, float]:
        """Counts since the start, ``…_total`` (``requests`` answered, ``rows``, ``tokens`` and
        ``padded_tokens``, ``turns``, ``model_seconds``, ``refused``, ``gone``, ``late``,
        ``failed``), and of now ``rows_waiting``, ``tokens_waiting``, ``requests_waiting``,
        ``seconds_a_token`` and ``wait_seconds``, what a request of one usual row would wait."""
        with self._lock:
            line, pace = self._line, self._pace.seconds
            rows = self._counts["rows_total"]
            usual = int(self._counts["tokens_total"] / rows) if rows else 0
            return {
                **self._counts,
                **{f"{name}_total": float(count) for name, count in line.dropped.items()},
                "rows_waiting": float(line.rows + self._reading),
                "tokens_waiting": float(line.tokens),
                "requests_waiting": float(len(line)),
                "seconds_a_token": pace,
                "wait_seconds": line.ahead(usual) * pace,
            }

    async def drain(self) -> None:
        self._draining = True
        while self._open:
            await asyncio.wait(set(self._open))

    def close(self) -> None:
        self._draining = True
        # Whoever shares the thread may outlive the one that began it.
        self._thread.remove(self._take)
        self._reader.shutdown(wait=False, cancel_futures=True)


COUNTED = (
    "requests_total",
    "rows_total",
    "tokens_total",
    "padded_tokens_total",
    "turns_total",
    "model_seconds_total",
    "refused_total",
    "failed_total",
)


def _deliver(some: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in some:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
