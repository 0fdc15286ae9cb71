"""``Lineup``: who answers. It is an engine itself, so that the service knows of one alone."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from holdfast.plugins.live.arms import in_challenger
from holdfast.plugins.service.live.setup import Setup
from holdfast.plugins.service.records import EngineFacts, RowPredictions, ServiceEngine
from holdfast.plugins.store.records import Row

POLL_S = 0.01


class Lineup:
    """The model in service (``shown``), a ``challenger`` where there is one, and the change from
    one model to the next without a request lost.

    With ``setup`` of way ``ab`` the challenger answers the users of its arm; of requests that name
    no user ``unnamed`` counts how many the shown model answered.
    """

    def __init__(
        self,
        shown: ServiceEngine,
        challenger: ServiceEngine | None = None,
        setup: Setup | None = None,
    ) -> None:
        self.shown, self.challenger, self._setup = shown, challenger, setup
        self._lock = threading.Lock()
        self._asked: Counter[int] = Counter()
        self.unnamed = 0
        # The comparison with the challenger; also ended where another model takes over.
        self.end_comparison: Callable[[], None] = lambda: None
        self._end_following: Callable[[], None] = lambda: None
        self._figures: Callable[[], Mapping[str, float]] = dict

    def followed_by(
        self, close: Callable[[], None], figures: Callable[[], Mapping[str, float]]
    ) -> None:
        """Have ``close`` called before the engines end, and ``figures`` stand among this one's."""
        self._end_following, self._figures = close, figures

    @property
    def _engines(self) -> list[ServiceEngine]:
        return [self.shown] if self.challenger is None else [self.shown, self.challenger]

    @property
    def facts(self) -> EngineFacts:
        return self.shown.facts

    @property
    def ready(self) -> bool:
        return all(engine.ready for engine in self._engines)

    def warm(self) -> None:
        for engine in self._engines:
            engine.warm()

    async def answer(
        self, rows: Sequence[Row], deadline: float | None = None, user: str | None = None
    ) -> RowPredictions:
        """As ``Engine.answer``; ``user`` is the stored hash of whom it is for."""
        with self._counted(lambda: self._for(user)) as engine:
            return await engine.answer(rows, deadline)

    def _for(self, user: str | None) -> ServiceEngine:
        setup = self._setup
        if self.challenger is None or setup is None or setup.way != "ab":
            return self.shown
        if user is None:
            self.unnamed += 1
            return self.shown
        mine = in_challenger(user, setup.secret, setup.share)
        return self.challenger if mine else self.shown

    def asking(self) -> AbstractContextManager[ServiceEngine]:
        """While this is open somebody is answered by the shown model otherwise than by ``answer``,
        and its end waits for that."""
        return self._counted(lambda: self.shown)

    @contextmanager
    def _counted(self, choose: Callable[[], ServiceEngine]) -> Iterator[ServiceEngine]:
        # Counted before anything is awaited: who takes over waits for these alone.
        with self._lock:
            engine = choose()
            self._asked[id(engine)] += 1
        try:
            yield engine
        finally:
            with self._lock:
                self._asked[id(engine)] -= 1

    @property
    def busy(self) -> bool:
        """Whether somebody waits for the shown model."""
        return self._asked[id(self.shown)] > 0

    def figures(self) -> Mapping[str, float]:
        found = dict(self.shown.figures())
        if self.challenger is not None:
            figures = self.challenger.figures().items()
            found |= {f"challenger_{name}": value for name, value in figures}
            found["requests_without_user"] = self.unnamed
        return {**found, **self._figures()}

    def take_over(self, engine: ServiceEngine) -> list[ServiceEngine]:
        """From the next request on ``engine`` answers, and there is no challenger. The engines that
        are not asked any more, to be ended by ``retire``."""
        with self._lock:
            before = self._engines
            self.shown, self.challenger, self._setup = engine, None, None
        return [one for one in before if one is not engine]

    def retire(self, engine: ServiceEngine) -> None:
        """End an engine that was taken off, once those that asked it have their answers: each
        request ends by itself, when its time is over at the latest."""
        while self._asked[id(engine)]:
            time.sleep(POLL_S)
        engine.close()

    async def drain(self) -> None:
        for engine in self._engines:
            await engine.drain()

    def close(self) -> None:
        self.end_comparison()
        self._end_following()
        for engine in self._engines:
            engine.close()
