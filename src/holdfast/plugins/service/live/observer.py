"""The live comparison as an observer of the service: it runs the challenger, updates the comparison
from the store every few seconds, and reports the result.

The challenger predicts in a separate thread after the shown predictions were sent, and only while
no request waits for the shown model. When it cannot keep up, whole requests are skipped before its
predictions are known, so the compared rows remain an unbiased sample of the traffic.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.core.errors import HoldfastError, StoreError
from holdfast.plugins.service.live.comparison import ComparisonState, update_comparison
from holdfast.plugins.service.live.router import ComparisonSetup
from holdfast.plugins.service.observers import Queue, masked_predictions
from holdfast.plugins.service.records import (
    DeadlineExceeded,
    QueueFull,
    RowPrediction,
    RowPredictions,
    Served,
    ServiceEngine,
)
from holdfast.plugins.store.records import Feedback, Row, StoredPrediction

if TYPE_CHECKING:
    from holdfast.plugins.store.store import Store

NAME = "comparison"
UPDATE_INTERVAL_S = 2.0
# An update may take a twentieth of the time, so that it never dominates the service's work.
MIN_IDLE_RATIO = 20
# Rows per call of the challenger; for this long at most a shown request shares the machine with it.
ROWS_PER_CALL = 4
MAX_QUEUED_ROWS = 5_000
PAUSE_S, MAX_PAUSE_S, IDLE_S = 0.002, 0.05, 1.0


class ComparisonObserver:
    """The observer. ``shadow_runner`` is set where both models predict each request."""

    def __init__(
        self,
        setup: ComparisonSetup,
        store: Store,
        shadow_runner: ShadowRunner | None = None,
        log: Callable[[str], None] = lambda _: None,
        update_interval_s: float = UPDATE_INTERVAL_S,
    ) -> None:
        self.setup, self.shadow_runner = setup, shadow_runner
        self._store, self._log, self._update_interval_s = store, log, update_interval_s
        self._summary: dict[str, Any] = {}
        self._verdict: str | None = None
        self._failing = False
        self._conversations = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="comparison", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        return NAME

    def observe(self, served: Served) -> None:
        over = self._end.is_set() or served.predictions.model != self.setup.shown
        if over or self.shadow_runner is None:
            return
        if served.conversation:
            # Its tokens may be sampled at random, which says nothing about the model.
            self._conversations += 1
        else:
            self.shadow_runner.put(served)

    def add_feedback(self, feedback: Feedback) -> None:
        """Does nothing: the store returns every label in order."""

    def state(self) -> Mapping[str, Any]:
        """Empty: the state is in the store's rows and a cursor."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Does nothing."""

    def events(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """None: the update that reaches a verdict stores the event."""
        return ()

    def summary(self) -> Mapping[str, Any]:
        result = dict(self._summary)
        if self._end.is_set():
            result["ended"] = "another model took over"
        if self.shadow_runner is not None:
            result["conversations_not_compared"] = self._conversations
            result["challenger_requests"] = self.shadow_runner.figures()
            result |= {f"challenger_{n}": v for n, v in self.shadow_runner.figures().items()}
        return result

    def close(self) -> None:
        """End the threads; stored rows stay. May be called twice."""
        self._end.set()
        if self.shadow_runner is not None:
            self.shadow_runner.close()
        self._thread.join(5.0)

    def _run(self) -> None:
        pause = 0.0
        while not self._end.wait(pause):
            started = time.monotonic()
            try:
                self._update()
            except StoreError as error:
                if not self._failing:
                    self._log(f"the comparison is waiting for the store: {error}")
                self._failing = True
            except Exception as error:
                # The message of a defect may contain a text.
                because = f"stopped by a bug in Holdfast: {type(error).__name__}"
                self._summary = {**self._summary, "off": because}
                self._log(f"the comparison was {because}")
                return
            pause = max(self._update_interval_s, MIN_IDLE_RATIO * (time.monotonic() - started))

    def _update(self) -> None:
        state: ComparisonState = update_comparison(self._store, self.setup, time.time())
        self._failing = False
        self._summary = state.summary()
        verdict = self._summary["verdict"]
        if verdict != self._verdict and (self._verdict is not None or verdict != "undecided"):
            self._log(f"comparison of {self.setup.challenger}: {self._summary['because']}")
        self._verdict = verdict


class ShadowRunner:
    """Runs the ``challenger`` on served requests, and stores its predictions.

    ``busy`` says whether a request waits for the shown model; requests that wait longer than
    ``patience_s`` are skipped. ``asked`` and ``dropped`` count requests, ``failed`` those on which
    the challenger raised an error, ``lost`` those that the store did not accept. ``mask``: mask
    personal data in generated text.
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
        self._queue: Queue[tuple[float, Served]] = Queue(MAX_QUEUED_ROWS)
        self.asked = self.failed = self.lost = self._given_up = 0
        self._logged_kinds: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="challenger", daemon=True)
        self._thread.start()

    def put(self, served: Served) -> None:
        """Queue the request for the challenger, if there is room."""
        self._queue.put((time.monotonic(), served), len(served.rows))

    @property
    def waiting(self) -> int:
        """Rows waiting for the challenger."""
        return self._queue.rows

    @property
    def dropped(self) -> int:
        """Requests that were skipped."""
        return self._queue.dropped + self._given_up

    def figures(self) -> dict[str, int]:
        """Its counters."""
        names = ("asked", "dropped", "failed", "lost", "waiting")
        return {name: getattr(self, name) for name in names}

    def close(self, within_s: float = 1.0) -> None:
        """Process nothing more."""
        self._queue.close()
        self._given_up += len(self._queue.take(len(self._queue), 0))
        self._thread.join(within_s)

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            while (served := self._next()) is not None:
                try:
                    predictions = runner.run(self._challenger_predictions(served))
                except _OutOfTime:
                    self._given_up += 1
                except Exception as error:
                    # A defect of the challenger must not end the comparison without a message.
                    self.failed += 1
                    self._log_once("failed", "the challenger made no prediction", error)
                else:
                    self.asked += 1
                    try:
                        # Masked as the shown model's text is, since the two are compared.
                        predictions = masked_predictions(predictions) if self._mask else predictions
                        self._store.add_predictions(served.request, predictions)
                    except StoreError as error:
                        self.lost += 1
                        self._log_once(
                            "lost", "the challenger's predictions could not be stored", error
                        )

    def _next(self) -> Served | None:
        while not self._queue.closed:
            for since, served in self._queue.take(1, IDLE_S):
                self._until = since + self._patience_s
                if time.monotonic() <= self._until and not self._queue.closed:
                    return served
                self._given_up += 1
        return None

    async def _challenger_predictions(self, served: Served) -> tuple[StoredPrediction, ...]:
        predictions: list[RowPrediction] = []
        model = ""
        for start in range(0, len(served.rows), ROWS_PER_CALL):
            pause = PAUSE_S
            while self._busy():
                await self._pause(pause)
                pause = min(MAX_PAUSE_S, 2 * pause)
            part = await self._predict(served.rows[start : start + ROWS_PER_CALL])
            predictions += part.answers
            model = part.model
        return RowPredictions(tuple(predictions), model).stored(shown=False)

    async def _predict(self, rows: Sequence[Row]) -> RowPredictions:
        while True:
            try:
                return await self._challenger.answer(rows, self._until)
            except QueueFull as full:
                await self._pause(min(full.retry_after, MAX_PAUSE_S))
            except DeadlineExceeded:
                raise _OutOfTime from None

    async def _pause(self, seconds: float) -> None:
        if self._queue.closed or time.monotonic() + seconds > self._until:
            raise _OutOfTime
        await asyncio.sleep(seconds)

    def _log_once(self, counter: str, message: str, error: Exception) -> None:
        """Once a kind: a fault that stays would fill the log."""
        if counter not in self._logged_kinds:
            self._logged_kinds.add(counter)
            # The message of a defect may contain a text.
            known = isinstance(error, HoldfastError)
            self._log(f"{message}: {error if known else type(error).__name__}")


class _OutOfTime(Exception):
    """The request has waited too long, or the service ends."""
