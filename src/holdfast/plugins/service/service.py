"""``Service``: what the endpoints share: the model in service with its store, observers and
metrics, its conversations (``ServedChats``) and its explanations (``ExplanationQueue``)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from holdfast.analyses.explain.explain import explain_rows
from holdfast.analyses.explain.explanation import Explanation
from holdfast.core.wording import count_phrase
from holdfast.plugins.service.chat.conversations import ChatLimits, Chats
from holdfast.plugins.service.engine.engine import ModelEngine
from holdfast.plugins.service.engine.rows import prediction_request
from holdfast.plugins.service.live.router import EngineRouter
from holdfast.plugins.service.metrics import ServiceCounters
from holdfast.plugins.service.observers import ObserverThread, masked_request, packed_vector
from holdfast.plugins.service.records import (
    EngineFacts,
    QueueFull,
    RowPredictions,
    Served,
    ServiceEngine,
    ServiceObserver,
)
from holdfast.plugins.service.settings import Serving
from holdfast.plugins.service.web.faults import Fault
from holdfast.plugins.service.web.guard import AccessRules
from holdfast.plugins.store.records import Row, StoredRequest, StoredText
from holdfast.plugins.store.writer import StoreWriter
from holdfast.tasks.lm.answers import CausalLMPredictor

if TYPE_CHECKING:
    from holdfast.plugins.store.store import Store

# Maximum characters of rows in memory that wait for feedback.
MAX_RECENT_CHARACTERS = 50_000_000
FLUSH_S = 10.0
MAX_WAITING = 4
SECONDS_A_ROW = 2.0
SOURCE = "the request"


@dataclass(frozen=True, slots=True)
class RecentRequest:
    """A request that was answered recently: its ``rows``, and its ``record`` in the store without
    the predictions."""

    rows: tuple[Row, ...]
    record: StoredRequest
    size: int


class Service:
    """One served model with its store, its observers and its metrics.

    ``engine`` may be loaded later (``begin``): until then the service is alive and not ready.
    ``log`` writes one line.
    """

    def __init__(
        self,
        settings: Serving,
        guard: AccessRules,
        store: Store | None = None,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.settings, self.guard, self.store, self.log = settings, guard, store, log
        # A balancer is told to send no more requests; some still arrive, and are answered until the
        # service is stopping.
        self.draining = self.stopping = False
        self.started = time.time()
        # The model, ready or not; ``None`` until it is loaded.
        self.loaded_engine: EngineRouter | None = None
        self.chats: ServedChats | None = None
        self._recent: OrderedDict[str, RecentRequest] = OrderedDict()
        self._recent_size = 0
        # Masked in the writer's thread: masking takes longer than a prediction may.
        prepare = masked_request if settings.mask else (lambda request: request)
        self.writer = None if store is None else StoreWriter(store, log, prepare=prepare)
        self.observer_thread: ObserverThread | None = None
        self.explanations = ExplanationQueue()
        self.counters = ServiceCounters(self._gauges, self.observer_summaries, self._model_labels)

    def load(self, engine: EngineRouter, observers: Sequence[ServiceObserver]) -> None:
        """Warm up the model and its conversations, then begin. Blocks."""
        served_chats = ServedChats(engine, self.settings)
        served_chats.warm()
        engine.warm()
        self.begin(engine, observers, served_chats)

    def begin(
        self,
        engine: EngineRouter,
        observers: Sequence[ServiceObserver] = (),
        chats: ServedChats | None = None,
    ) -> None:
        """Set the loaded model, with ``chats`` where it supports conversations."""
        self.loaded_engine, self.chats = engine, chats
        self.observer_thread = ObserverThread(
            observers, self.store, self.log, lambda: engine.facts.model
        )

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return not (self.draining or self.stopping) and self._engine_ready

    @property
    def _engine_ready(self) -> bool:
        return self.loaded_engine is not None and self.loaded_engine.ready

    @property
    def engine(self) -> EngineRouter:
        """The model. Raises ``Fault`` 503 where it is not loaded or the service shuts down."""
        if self.loaded_engine is None or self.stopping or not self._engine_ready:
            rule, retry_after_s = (
                ("is shutting down", 5) if self.stopping else ("is loading its model", 1)
            )
            remedy = "Retry after the seconds in Retry-After."
            raise Fault(
                503,
                "this service",
                rule,
                None,
                remedy,
                reason="not ready",
                retry_after_s=retry_after_s,
            )
        return self.loaded_engine

    @property
    def shown(self) -> ServiceEngine:
        """The model in service, without a challenger; raises as ``engine`` does."""
        return self.engine.shown

    @property
    def facts(self) -> EngineFacts:
        """The model's facts; raises as ``engine`` does."""
        return self.engine.facts

    async def answer(
        self, rows: Sequence[Row], deadline: float, user: str | None = None
    ) -> RowPredictions:
        """The predictions for rows (in an A/B test by the model of the ``user``'s arm); raises as
        ``ServiceEngine.answer`` does."""
        predictions = await self.engine.answer(rows, deadline, user)
        abstained = sum(one.prediction is None for one in predictions.answers)
        self.counters.count_rows(len(rows), abstained)
        return predictions

    def finish_request(self, served: Served, seconds: float, size: int) -> None:
        """After the response is sent: keep the request in memory, store it, and pass it to the
        observers."""
        record = self._record(served, seconds)
        self._remember(served, replace(record, predictions=(), texts=()), size)
        if self.writer is not None:
            self.writer.add(record)
        if self.observer_thread is not None:
            self.observer_thread.notify(served)

    def recent_request(self, request: str) -> RecentRequest | None:
        """A recent request, where it is still in memory."""
        return self._recent.get(request)

    def observer_summaries(self) -> Mapping[str, Mapping[str, Any]]:
        """The observers' summaries."""
        return self.observer_thread.summaries() if self.observer_thread is not None else {}

    def close(self) -> None:
        """Write pending records, and end the threads."""
        if self.chats is not None:
            self.chats.drain()
        if self.observer_thread is not None:
            self.observer_thread.close(FLUSH_S)
        if self.writer is not None:
            self.writer.close(FLUSH_S)
            counts = self.writer.counts()
            if not_stored := counts.lost + counts.refused:
                self.log(f"{count_phrase(not_stored, 'request')} could not be stored")
        if self.loaded_engine is not None:
            self.loaded_engine.close()
        if self.store is not None:
            self.store.close()

    def _remember(self, served: Served, record: StoredRequest, size: int) -> None:
        self._recent[served.request] = RecentRequest(served.rows, record, size)
        self._recent_size += size
        while self._recent and (
            len(self._recent) > self.settings.max_remembered
            or self._recent_size > MAX_RECENT_CHARACTERS
        ):
            _, oldest = self._recent.popitem(last=False)
            self._recent_size -= oldest.size

    def _record(self, served: Served, seconds: float) -> StoredRequest:
        predictions = served.predictions
        texts: tuple[StoredText, ...] = ()
        if self.settings.log_texts:
            expires_at, vectors = self.settings.expiry(served.at), predictions.vectors
            texts = tuple(
                StoredText(place, row, packed_vector(vectors, place), expires_at)
                for place, row in enumerate(served.rows)
            )
        rows, name = len(served.rows), predictions.model
        return StoredRequest(
            served.request, served.at, name, rows, seconds, served.user, predictions.stored(), texts
        )

    def _gauges(self) -> dict[str, float]:
        gauges = {"ready": float(self.ready), "uptime_seconds": time.time() - self.started}
        for name, part in (("engine", self.loaded_engine), ("chat", self.chats)):
            if part is not None:
                gauges |= {f"{name}_{key}": value for key, value in part.figures().items()}
        if self.writer is not None:
            counts = self.writer.counts()
            gauges |= {
                "store_requests_written_total": float(counts.written),
                "store_requests_lost_total": float(counts.lost + counts.refused),
                "store_requests_waiting": float(counts.waiting),
                "store_failures_total": float(counts.failures),
                "store_away": float(counts.away),
            }
        if self.observer_thread is not None:
            gauges["observers_dropped_total"] = float(self.observer_thread.dropped)
            gauges["observers_defects_total"] = float(self.observer_thread.defects)
        return gauges

    def _model_labels(self) -> dict[str, str]:
        if self.loaded_engine is None:
            return {}
        facts = self.loaded_engine.facts
        return {"model": facts.model, "task": facts.task, "precision": facts.precision}


class ServedChats:
    """The conversations of the model in service, also after a promotion: new conversations use the
    new model, and open ones end with the previous one.

    ``chats`` are those of the first model, where they exist already.
    """

    def __init__(self, engine: EngineRouter, settings: Serving, chats: Chats | None = None) -> None:
        self._engine, self._settings = engine, settings
        self._lock = asyncio.Lock()
        self._chats_engine = None if chats is None else engine.shown
        self._chats = chats

    def warm(self) -> None:
        """Create the conversations of the model in service now. Blocks."""
        engine, settings = self._engine.shown, self._settings
        chats = None
        if isinstance(engine, ModelEngine) and isinstance(engine.use, CausalLMPredictor):
            thread = engine.thread
            chats = Chats(
                engine.use,
                engine.facts.run.resolve().name,
                # Between two turns of the engine.
                run_exclusively=lambda job: thread.run(job).result(),
                stored_name=engine.facts.model,
                limits=ChatLimits(
                    max_running=settings.chat_together,
                    max_waiting=settings.chat_waiting,
                    deadline_s=settings.chat_timeout_s,
                ),
            )
            chats.warm()
        self._chats_engine, self._chats = engine, chats

    async def current(self) -> Chats | None:
        """The conversations of the model in service; ``None`` where it is not a language model."""
        if self._chats_engine is self._engine.shown:
            return self._chats
        async with self._lock:
            if self._chats_engine is not self._engine.shown:
                previous = self._chats
                await asyncio.to_thread(self.warm)
                if previous is not None:
                    threading.Thread(target=previous.drain, daemon=True).start()
        return self._chats

    def figures(self) -> dict[str, float]:
        """Numbers for /metrics, of the model in service."""
        return {} if self._chats is None else self._chats.figures()

    def drain(self) -> None:
        """Accept no more conversations, and finish the accepted ones."""
        if self._chats is not None:
            self._chats.drain()


class ExplanationQueue:
    """Explains one request at a time."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def explain(self, engine: ServiceEngine, rows: Sequence[Row]) -> dict[str, Any]:
        """The explanations of ``holdfast explain --json`` for the rows. Raises ``QueueFull`` where
        too many requests wait, ``InputError`` for rows that cannot be read."""
        assert isinstance(engine, ModelEngine)
        if self._waiting >= MAX_WAITING:
            raise QueueFull(SECONDS_A_ROW * self._waiting, "other explanations are waiting")
        self._waiting += 1
        try:
            async with self._turn:
                explanations = [
                    await engine.run(partial(_explain_row, engine, row)) for row in rows
                ]
        finally:
            self._waiting -= 1
        joined = tuple(
            replace(row, row=n) for n, one in enumerate(explanations) for row in one.rows
        )
        seconds = sum(one.seconds for one in explanations)
        return replace(explanations[0], rows=joined, seconds=seconds).to_json()


def _explain_row(engine: ModelEngine, row: Row) -> Explanation:
    predictor, run = engine.predictor, engine.facts.model
    return explain_rows(predictor, prediction_request(predictor, [row]), run, SOURCE, rows=1)
