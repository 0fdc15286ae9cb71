"""``Lineup``: who answers. It is an engine itself, so that the service knows of one alone."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from holdfast.plugins.live.arms import in_challenger
from holdfast.plugins.service.live.setup import Setup
from holdfast.plugins.service.records import EngineFacts, RowPredictions, ServiceEngine
from holdfast.plugins.store.records import Row

POLL_S = 0.01


class Lineup:
    """The model in service, a challenger where there is one, and the change from one model to the
    next without a request lost.

    With ``setup`` of way ``ab`` the challenger answers the users of its arm; of requests that name
    no user ``unnamed`` counts how many the shown model answered.
    """

    def __init__(
        self,
        shown: ServiceEngine,
        challenger: ServiceEngine | None = None,
        setup: Setup | None = None,
    ) -> None:
        self._shown, self._challenger, self._setup = shown, challenger, setup
        self._lock = threading.Lock()
        self._asked: Counter[int] = Counter()
        self.unnamed = 0
        self._ends: list[Callable[[], None]] = []
        self._figures: list[Callable[[], Mapping[str, float]]] = []

    def ends_with(
        self, close: Callable[[], None], figures: Callable[[], Mapping[str, float]] = dict
    ) -> None:
        """Have ``close`` called before the engines end, and ``figures`` stand among this one's."""
        self._ends.append(close)
        self._figures.append(figures)

    @property
    def shown(self) -> ServiceEngine:
        """The model in service."""
        return self._shown

    @property
    def challenger(self) -> ServiceEngine | None:
        """The model that is compared with it."""
        return self._challenger

    @property
    def facts(self) -> EngineFacts:
        return self._shown.facts

    @property
    def ready(self) -> bool:
        return self._shown.ready and (self._challenger is None or self._challenger.ready)

    def warm(self) -> None:
        self._shown.warm()
        if self._challenger is not None:
            self._challenger.warm()

    async def answer(
        self, rows: Sequence[Row], deadline: float | None = None, user: str | None = None
    ) -> RowPredictions:
        """As ``Engine.answer``; ``user`` is the stored hash of whom it is for."""
        with self._lock:
            # Counted before anything is awaited: who takes over waits for these alone.
            engine = self._for(user)
            self._asked[id(engine)] += 1
        try:
            return await engine.answer(rows, deadline)
        finally:
            with self._lock:
                self._asked[id(engine)] -= 1

    def _for(self, user: str | None) -> ServiceEngine:
        setup = self._setup
        if self._challenger is None or setup is None or setup.way != "ab":
            return self._shown
        if user is None:
            self.unnamed += 1
            return self._shown
        mine = in_challenger(user, setup.secret, setup.share)
        return self._challenger if mine else self._shown

    @contextmanager
    def asking(self) -> Iterator[None]:
        """While this is open somebody is answered by the shown model otherwise than by ``answer``,
        and its end waits for that."""
        with self._lock:
            engine = self._shown
            self._asked[id(engine)] += 1
        try:
            yield
        finally:
            with self._lock:
                self._asked[id(engine)] -= 1

    @property
    def busy(self) -> bool:
        """Whether somebody waits for the shown model."""
        return self._asked[id(self._shown)] > 0

    def figures(self) -> Mapping[str, float]:
        found = dict(self._shown.figures())
        if self._challenger is not None:
            figures = self._challenger.figures().items()
            found |= {f"challenger_{name}": value for name, value in figures}
            found["requests_without_user"] = self.unnamed
        for more in self._figures:
            found |= more()
        return found

    def take_over(self, engine: ServiceEngine) -> list[ServiceEngine]:
        """From the next request on ``engine`` answers, and there is no challenger. The engines that
        are not asked any more, to be ended by ``retire``."""
        with self._lock:
            before = [self._shown, self._challenger]
            self._shown, self._challenger, self._setup = engine, None, None
        return [one for one in before if one is not None and one is not engine]

    def retire(self, engine: ServiceEngine) -> None:
        """End an engine that was taken off, once those that asked it have their answers: each
        request ends by itself, when its time is over at the latest."""
        while self._asked[id(engine)]:
            time.sleep(POLL_S)
        engine.close()

    async def drain(self) -> None:
        for engine in (self._shown, self._challenger):
            if engine is not None:
                await engine.drain()

    def close(self) -> None:
        for close in self._ends:
            close()
        for engine in (self._shown, self._challenger):
            if engine is not None:
                engine.close()
