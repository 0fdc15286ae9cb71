"""``ModelEngine``: requests of many clients, answered by one model in one thread (``ModelThread``).

The event loop parses small requests itself and passes large ones to a reader thread; all wait in
one ``RequestQueue``. The model's thread takes the next turn as soon as the last one is over, so
that a turn contains whatever arrived meanwhile. It returns all finished requests to the loop in one
call.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from holdfast.plugins.service.engine.request_queue import (
    EngineTurn,
    Pace,
    QueueLimits,
    RequestQueue,
    WaitingRequest,
)
from holdfast.plugins.service.records import (
    DeadlineExceeded,
    EngineFacts,
    QueueFull,
    RowPredictions,
)
from holdfast.plugins.store.records import Row
from holdfast.runs.predictor import Predictor
from holdfast.training.machine.machine import flushed_subnormals

T = TypeVar("T")
# Target duration of a turn: new requests wait for it, and large turns are slightly faster per row.
TURN_SECONDS = 0.05
# Minimum tokens of a turn, however slow the model: a shorter one is not worth its overhead.
MIN_TURN_TOKENS = 256
# Seconds after which a client should retry while the engine is not ready.
NOT_READY_RETRY_S = 1.0
COUNTERS = (
    "requests",
    "rows",
    "tokens",
    "padded_tokens",
    "turns",
    "model_seconds",
    "refused",
    "failed",
)
# A piece of work for the model's thread.
RunOnModel = Callable[[Callable[[], float]], float]
Work = Callable[[], None]


class RowHandler(Protocol):
    """How the rows of a task are parsed, predicted and returned. A turn may have ``turn_tokens``,
    however long it takes."""

    turn_tokens: int

    def is_light(self, rows: Sequence[Row]) -> bool: ...

    def read(self, rows: Sequence[Row]) -> Any: ...

    def predict(self, turn: EngineTurn) -> int: ...

    def collect(self, reads: Sequence[Any], model: str) -> list[RowPredictions]: ...

    def warm(self, alone: RunOnModel) -> tuple[int, float]: ...


class ModelEngine:
    """A ``ServiceEngine`` over a ``RowHandler``. ``predictor`` is for callers that use the model
    through ``run``.

    Several engines may share a ``thread``; one with a higher ``rank`` runs when those of lower
    ranks have no work. Each of the ``listeners`` receives the rows, tokens and seconds of each
    turn.
    """

    def __init__(
        self,
        handler: RowHandler,
        facts: EngineFacts,
        predictor: Predictor,
        limits: QueueLimits,
        *,
        thread: ModelThread | None = None,
        rank: int = 0,
    ) -> None:
        self.facts, self.predictor = facts, predictor
        self.thread = thread or ModelThread()
        self.listeners: list[Callable[[int, int, float], None]] = []
        self._handler = handler
        self._request_queue = RequestQueue(limits)
        self._pace = Pace()
        self._lock = threading.Lock()
        self._reader = ThreadPoolExecutor(1, "reader")
        self._warm = self._draining = False
        self._reading = 0
        self._open_futures: set[asyncio.Future[Any]] = set()
        self._counts = dict.fromkeys(COUNTERS, 0.0)
        self.thread.add(self._next_turn, rank)

    @property
    def use(self) -> Any:
        """The model (``contract.inference.TaskPredictor``), for callers that use it through
        ``run``; ``None`` where the handler has none."""
        return getattr(self._handler, "use", None)

    @property
    def ready(self) -> bool:
        return self._warm and not self._draining

    def warm(self) -> None:
        # One pass at a time: other users of the thread continue between them.
        tokens, seconds = self._handler.warm(lambda job: self.thread.run(job).result())
        with self._lock:
            self._pace.add(tokens, seconds)
        self._warm = True

    async def run(self, job: Callable[[], T]) -> T:
        """Run a job with exclusive use of the model, between two turns."""
        return await asyncio.wrap_future(self.thread.run(job))

    async def answer(self, rows: Sequence[Row], deadline: float | None = None) -> RowPredictions:
        expires_at = math.inf if deadline is None else deadline
        loop = asyncio.get_running_loop()
        try:
            self._admit(len(rows), expires_at)
            parsed = await self._read(rows)
            if not parsed.costs:
                (empty_result,) = self._handler.collect([parsed], self.facts.model)
                self._count(requests=1)
                return empty_result
            waiting = WaitingRequest(parsed, parsed.costs, loop.create_future(), expires_at)
            with self._lock:
                try:
                    self._request_queue.add(waiting, time.monotonic(), self._pace.seconds)
                except DeadlineExceeded:
                    if not len(self._request_queue):
                        self._pace.halve_on_refusal()
                    raise
        except QueueFull:
            self._count(refused=1)
            raise
        self._open_futures.add(waiting.caller)
        timer = None
        if expires_at < math.inf:
            timer = loop.call_later(max(0.0, expires_at - time.monotonic()), _expire, waiting)
        self.thread.wake()
        try:
            predictions: RowPredictions = await waiting.caller
            return predictions
        finally:
            # Cancelled or expired: the remaining rows are not predicted.
            waiting.abandoned = waiting.abandoned or not waiting.expired
            self._open_futures.discard(waiting.caller)
            if timer is not None:
                timer.cancel()

    def _admit(self, rows: int, expires_at: float) -> None:
        """Raise ``QueueFull`` or ``DeadlineExceeded`` before a request costs any time, where it can
        be known."""
        if not self.ready:
            raise QueueFull(
                NOT_READY_RETRY_S, "shutting down" if self._draining else "not ready yet"
            )
        if expires_at <= time.monotonic():
            raise DeadlineExceeded
        with self._lock:
            self._request_queue.refuse(rows + self._reading, self._pace.seconds)

    async def _read(self, rows: Sequence[Row]) -> Any:
        if self._handler.is_light(rows):
            return self._handler.read(rows)
        self._reading += len(rows)
        loop = asyncio.get_running_loop()
        reading = loop.run_in_executor(self._reader, self._handler.read, rows)
        self._open_futures.add(reading)
        try:
            return await reading
        finally:
            self._reading -= len(rows)
            self._open_futures.discard(reading)

    def _next_turn(self) -> Work | None:
        """The next turn, for the model's thread."""
        with self._lock:
            pace = self._pace.seconds
            affordable = int(TURN_SECONDS / pace) if pace else MIN_TURN_TOKENS
            max_tokens = max(MIN_TURN_TOKENS, affordable, self._handler.turn_tokens)
            turn = self._request_queue.next_turn(time.monotonic(), max_tokens)
        return None if turn is None else lambda: self._run_turn(turn)

    def _run_turn(self, turn: EngineTurn) -> None:
        started = time.perf_counter()
        results: dict[WaitingRequest, RowPredictions | Exception] = {}
        padded = 0
        try:
            padded = self._handler.predict(turn)
        except Exception as error:
            results |= self._run_separately(turn, error)
        for request, places in turn.parts:
            request.answered += len(places)
        complete = [request for request, _ in turn.parts if request.answered == len(request.costs)]
        if done := [request for request in complete if request not in results]:
            try:
                predictions = self._handler.collect(
                    [request.parsed for request in done], self.facts.model
                )
                results |= zip(done, predictions, strict=True)
            except Exception as error:
                results |= dict.fromkeys(done, error)
        seconds = time.perf_counter() - started
        failed = sum(isinstance(result, Exception) for result in results.values())
        with self._lock:
            self._pace.add(turn.tokens, seconds)
            self._count(
                turns=1,
                rows=turn.rows,
                tokens=turn.tokens,
                padded_tokens=max(padded, turn.tokens),
                model_seconds=seconds,
                requests=len(results) - failed,
                failed=failed,
            )
        for listener in self.listeners:
            with contextlib.suppress(Exception):
                listener(turn.rows, turn.tokens, seconds)
        _deliver_results(results)

    def _run_separately(
        self, turn: EngineTurn, error: Exception
    ) -> dict[WaitingRequest, Exception]:
        """Predict each request of a failed turn by itself; return those that fail again, with their
        errors."""
        if len(turn.parts) == 1:
            return {turn.parts[0][0]: error}
        failed = {}
        for request, places in turn.parts:
            try:
                self._handler.predict(EngineTurn.of_request(request, places))
            except Exception as own_error:
                failed[request] = own_error
        return failed

    def _count(self, **increments: float) -> None:
        for name, value in increments.items():
            self._counts[name] += value

    def figures(self) -> dict[str, float]:
        """Counts since the start, ``…_total`` (``requests`` answered, ``rows``, ``tokens`` and
        ``padded_tokens``, ``turns``, ``model_seconds``, ``refused``, ``gone``, ``late``,
        ``failed``), and current ``rows_waiting``, ``tokens_waiting``, ``requests_waiting``,
        ``seconds_a_token`` and ``wait_seconds``, the expected wait of a request with one average
        row."""
        with self._lock:
            queue, pace, counts = self._request_queue, self._pace.seconds, self._counts
            mean_tokens = int(counts["tokens"] / counts["rows"]) if counts["rows"] else 0
            totals = {**counts, **queue.dropped}
            return {
                **{f"{name}_total": float(count) for name, count in totals.items()},
                "rows_waiting": float(queue.rows + self._reading),
                "tokens_waiting": float(queue.tokens),
                "requests_waiting": float(len(queue)),
                "seconds_a_token": pace,
                "wait_seconds": queue.ahead(mean_tokens) * pace,
            }

    async def drain(self) -> None:
        self._draining = True
        while self._open_futures:
            await asyncio.wait(set(self._open_futures))

    def close(self) -> None:
        self._draining = True
        # Another engine that shares the thread may outlive this one.
        self.thread.remove(self._next_turn)
        self._reader.shutdown(wait=False, cancel_futures=True)


def _expire(request: WaitingRequest) -> None:
    if not request.caller.done():
        request.expired, request.deadline = True, -math.inf
        request.caller.set_exception(DeadlineExceeded())


def _deliver_results(results: Mapping[WaitingRequest, RowPredictions | Exception]) -> None:
    """Set the results of the requests, in one call per event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]]
    by_loop = defaultdict(list)
    for request, result in results.items():
        # The other rows of a failed request are not predicted.
        request.abandoned = request.abandoned or isinstance(result, Exception)
        by_loop[request.caller.get_loop()].append((request.caller, result))
    for loop, pairs in by_loop.items():
        # Nothing waits on a closed loop.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_set_results, pairs)


def _set_results(pairs: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in pairs:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)


class ModelThread:
    """A thread with several sources of work. A source returns its next turn on request; one with a
    higher rank waits until those of lower ranks have none."""

    def __init__(self, name: str = "model") -> None:
        self._wake = threading.Condition()
        self._sources: list[tuple[int, Callable[[], Work | None]]] = []
        self._jobs: deque[Work] = deque()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def add(self, source: Callable[[], Work | None], rank: int = 0) -> None:
        """Take work from ``source`` from now on."""
        with self._wake:
            self._sources = sorted([*self._sources, (rank, source)], key=lambda one: one[0])
            self._wake.notify()

    def remove(self, source: Callable[[], Work | None]) -> None:
        """Take no more work from ``source``; the thread ends with its last source."""
        with self._wake:
            self._sources = [one for one in self._sources if one[1] != source]
            last = not self._sources
        if last:
            self.close()

    def wake(self) -> None:
        """Report that a source has work."""
        with self._wake:
            self._wake.notify()

    def run(self, job: Callable[[], T]) -> Future[T]:
        """Run ``job`` between two turns, one job at a time."""
        future: Future[T] = Future()

        def run_job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(job())
            except BaseException as error:
                future.set_exception(error)

        with self._wake:
            if self._closed:
                future.cancel()
                return future
            self._jobs.append(run_job)
            self._wake.notify()
        return future

    def close(self) -> None:
        """End the thread after the current turn; waiting work is dropped. May be called twice."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        with flushed_subnormals():
            while True:
                with self._wake:
                    works = self._next_work()
                    while not works and not self._closed:
                        self._wake.wait()
                        works = self._next_work()
                    if self._closed:
                        return
                for work in works:
                    # Each handles its own errors; one that does not must not end the thread.
                    with contextlib.suppress(Exception):
                        work()

    def _next_work(self) -> list[Work]:
        works: list[Any] = [self._jobs.popleft()] if self._jobs else []
        for _, source in self._sources:
            turn = source()
            if turn is not None:
                return [*works, turn]
        return works
