"""``Service``: everything that the endpoints share: the model in service with its store, its
observers and its numbers, its conversations (``Following``) and its reasons (``Explaining``).
"""

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
from holdfast.plugins.service.afterwards import Watching, masked_request, packed
from holdfast.plugins.service.chat.conversations import ChatBounds, Chats, at_once
from holdfast.plugins.service.engine.engine import ModelEngine
from holdfast.plugins.service.engine.rows import asked_of
from holdfast.plugins.service.live.lineup import Lineup
from holdfast.plugins.service.metrics import ServiceCounters
from holdfast.plugins.service.records import (
    EngineFacts,
    Full,
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

if TYPE_CHECKING:
    from holdfast.plugins.store.store import Store

DAY_S = 86_400.0
# Characters of rows that are held in memory until somebody says what is right for them.
REMEMBERED = 50_000_000
FLUSH_S = 10.0
MOST_WAITING = 4
SECONDS_A_ROW = 2.0
SOURCE = "the request"


@dataclass(frozen=True, slots=True)
class Remembered:
    """A request that was answered a short while ago: its ``rows``, and the ``asked`` that stands in
    the store, without what was said."""

    rows: tuple[Row, ...]
    asked: StoredRequest
    size: int


class Service:
    """One model that is served, with its store, its observers and its numbers.

    ``engine`` may be loaded later (``begin``): until then the service is alive and not ready.
    ``log`` takes one line.
    """

    def __init__(
        self,
        settings: Serving,
        guard: AccessRules,
        store: Store | None = None,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.settings, self.guard, self.store, self.log = settings, guard, store, log
        self.draining = False
        self.started = time.time()
        # The model, ready or not; ``None`` before it is loaded.
        self.held: ServiceEngine | None = None
        self.chats: Following | None = None
        self._memory: OrderedDict[str, Remembered] = OrderedDict()
        self._memory_size = 0
        # Masked in the writer's thread: it takes longer than an answer may.
        masking = masked_request if settings.mask else (lambda request: request)
        self.writing = None if store is None else StoreWriter(store, log, prepare=masking)
        self.watching: Watching | None = None
        self.explaining = Explaining()
        self.measured = ServiceCounters(self._now, self.said, self._labels)

    def load(self, engine: ServiceEngine, observers: Sequence[ServiceObserver]) -> None:
        """Warm the model and its conversations, and begin. Blocks."""
        chats = Following(engine, self.settings)
        chats.warm()
        engine.warm()
        self.begin(engine, observers, chats)

    def begin(
        self,
        engine: ServiceEngine,
        observers: Sequence[ServiceObserver] = (),
        chats: Following | None = None,
    ) -> None:
        """The model is there, with ``chats`` where it may hold conversations."""
        self.held, self.chats = engine, chats
        self.watching = Watching(observers, self.store, self.log, lambda: engine.facts.model)

    @property
    def ready(self) -> bool:
        """Whether a request would be answered."""
        return not self.draining and self.held is not None and self.held.ready

    @property
    def engine(self) -> ServiceEngine:
        """The model. Raises ``Fault`` 503 where there is none yet."""
        if self.held is None or not self.ready:
            rule, again_s = ("shuts down", 5) if self.draining else ("is loading its model", 1)
            remedy = "Ask again after the seconds in Retry-After."
            raise Fault(
                503, "this service", rule, None, remedy, reason="not ready", again_s=again_s
            )
        return self.held

    @property
    def shown(self) -> ServiceEngine:
        """The model itself, without those that are compared with it; raises as ``engine`` does."""
        return shown_of(self.engine)

    @property
    def facts(self) -> EngineFacts:
        """What is known of the model; raises as ``engine`` does."""
        return self.engine.facts

    async def answer(
        self, rows: Sequence[Row], deadline: float, user: str | None = None
    ) -> RowPredictions:
        """What the model says of rows (in an A/B test that of the ``user``'s arm); raises as
        ``Engine.answer`` does."""
        engine = self.engine
        if isinstance(engine, Lineup):
            answered = await engine.answer(rows, deadline, user)
        else:
            answered = await engine.answer(rows, deadline)
        left = sum(one.prediction is None for one in answered.answers)
        self.measured.predicted(len(rows), left)
        return answered

    def afterwards(self, served: Served, seconds: float, size: int) -> None:
        """The answer is out: remember it, have it written, show it to the observers."""
        record = self._record(served, seconds)
        self._remember(served, replace(record, predictions=(), texts=()), size)
        if self.writing is not None:
            self.writing.add(record)
        if self.watching is not None:
            self.watching.put(served)

    def remembered(self, request: str) -> Remembered | None:
        """A request of a short while ago."""
        return self._memory.get(request)

    def expiry(self, at: float) -> float:
        """When a text that was kept then is to go."""
        return at + self.settings.retention_days * DAY_S

    def said(self) -> Mapping[str, Mapping[str, Any]]:
        """What the observers say."""
        return self.watching.said() if self.watching is not None else {}

    def close(self) -> None:
        """Write what is left, and end the threads."""
        if self.chats is not None:
            self.chats.drain()
        if self.watching is not None:
            self.watching.close(FLUSH_S)
        if self.writing is not None:
            self.writing.close(FLUSH_S)
            counts = self.writing.counts()
            if missed := counts.lost + counts.refused:
                self.log(f"{count_phrase(missed, 'request')} could not be stored")
        if self.held is not None:
            self.held.close()
        if self.store is not None:
            self.store.close()

    def _remember(self, served: Served, asked: StoredRequest, size: int) -> None:
        self._memory[served.request] = Remembered(served.rows, asked, size)
        self._memory_size += size
        while self._memory and (
            len(self._memory) > self.settings.max_remembered or self._memory_size > REMEMBERED
        ):
            _, gone = self._memory.popitem(last=False)
            self._memory_size -= gone.size

    def _record(self, served: Served, seconds: float) -> StoredRequest:
        answered = served.answered
        texts: tuple[StoredText, ...] = ()
        if self.settings.log_texts:
            over, vectors = self.expiry(served.at), answered.vectors
            texts = tuple(
                StoredText(place, row, packed(vectors, place), over)
                for place, row in enumerate(served.rows)
            )
        rows, name = len(served.rows), answered.model
        return StoredRequest(
            served.request, served.at, name, rows, seconds, served.user, answered.stored(), texts
        )

    def _now(self) -> dict[str, float]:
        found = {"ready": float(self.ready), "uptime_seconds": time.time() - self.started}
        for name, part in (("engine", self.held), ("chat", self.chats)):
            if part is not None:
                found |= {f"{name}_{key}": value for key, value in part.figures().items()}
        if self.writing is not None:
            counts = self.writing.counts()
            found |= {
                "store_requests_written_total": float(counts.written),
                "store_requests_lost_total": float(counts.lost + counts.refused),
                "store_requests_waiting": float(counts.waiting),
                "store_failures_total": float(counts.failures),
                "store_away": float(counts.away),
            }
        if self.watching is not None:
            found["observers_dropped_total"] = float(self.watching.dropped)
            found["observers_defects_total"] = float(self.watching.defects)
        return found

    def _labels(self) -> dict[str, str]:
        if self.held is None:
            return {}
        facts = self.held.facts
        return {"model": facts.model, "task": facts.task, "precision": facts.precision}


class Following:
    """The conversations of the model in service, also after another was promoted into its place:
    the next one is with that model, and those that were taken on end with the one before.

    ``chats`` are those of the first model, where they are there already.
    """

    def __init__(
        self, engine: ServiceEngine, settings: Serving, chats: Chats | None = None
    ) -> None:
        self._engine, self._settings = engine, settings
        self._lock = asyncio.Lock()
        self._of = None if chats is None else shown_of(engine)
        self._chats = chats

    def warm(self) -> None:
        """Be ready for the model that is in service now. Blocks."""
        engine, settings = shown_of(self._engine), self._settings
        use, thread = getattr(engine, "use", None), getattr(engine, "thread", None)
        facts = engine.facts
        chats = Chats.of(
            use,
            facts.run.resolve().name,
            mark=facts.model,
            # Between two turns of the rows that the engine answers.
            within=at_once if thread is None else lambda job: thread.run(job).result(),
            bounds=ChatBounds(
                together=settings.chat_together,
                waiting=settings.chat_waiting,
                deadline_s=settings.chat_timeout_s,
            ),
        )
        if chats is not None:
            chats.warm()
        self._of, self._chats = engine, chats

    async def now(self) -> Chats | None:
        """The conversations with the model in service; ``None`` where it is no language model."""
        if self._of is shown_of(self._engine):
            return self._chats
        async with self._lock:
            if self._of is not shown_of(self._engine):
                before = self._chats
                await asyncio.to_thread(self.warm)
                if before is not None:
                    threading.Thread(target=before.drain, daemon=True).start()
        return self._chats

    def figures(self) -> dict[str, float]:
        """Numbers for /metrics, of the model in service."""
        return {} if self._chats is None else self._chats.figures()

    def drain(self) -> None:
        """Take on no more, and end those that were taken on."""
        if self._chats is not None:
            self._chats.drain()


def shown_of(engine: ServiceEngine) -> ServiceEngine:
    """The engine that answers, where several stand in a line."""
    shown: ServiceEngine = getattr(engine, "shown", engine)
    return shown


class Explaining:
    """One request for reasons after the other."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def explain(self, engine: ServiceEngine, rows: Sequence[Row]) -> dict[str, Any]:
        """What ``holdfast explain --json`` says of the rows. Raises ``Full`` where others wait for
        theirs, ``InputError`` for rows that cannot be read."""
        if not isinstance(engine, ModelEngine):
            rule, remedy = "cannot be asked of this model", "Use holdfast explain."
            raise Fault(400, "/explain", rule, None, remedy, reason="not explained")
        if self._waiting >= MOST_WAITING:
            raise Full(SECONDS_A_ROW * self._waiting, "others wait for their reasons")
        self._waiting += 1
        try:
            async with self._turn:
                found = [await engine.run(partial(_explained, engine, row)) for row in rows]
        finally:
            self._waiting -= 1
        joined = tuple(replace(row, row=n) for n, one in enumerate(found) for row in one.rows)
        seconds = sum(one.seconds for one in found)
        return replace(found[0], rows=joined, seconds=seconds).to_json()


def _explained(engine: ModelEngine, row: Row) -> Explanation:
    predictor, run = engine.predictor, engine.facts.model
    return explain_rows(predictor, asked_of(predictor, [row]), run, SOURCE, rows=1)
