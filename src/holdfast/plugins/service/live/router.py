"""Who answers: the model in service, a challenger where there is one, and how the two are compared.

``Lineup`` is an engine itself, so that the service knows of one alone.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

from holdfast.core.errors import RecipeError
from holdfast.plugins.live.arms import in_challenger
from holdfast.plugins.service.records import EngineFacts, RowPredictions, ServiceEngine
from holdfast.plugins.store.records import Row

POLL_INTERVAL_S = 0.01
ComparisonMode = Literal["shadow", "ab"]
REMEDY = "Train the challenger on the same task and classes, or compare the two on a file: "


class EngineRouter:
    """The model in service (``shown``), a ``challenger`` where there is one, and the change from
    one model to the next without a request lost.

    With ``setup`` of way ``ab`` the challenger answers the users of its arm; of requests that name
    no user ``unnamed`` counts how many the shown model answered.
    """

    def __init__(
        self,
        shown: ServiceEngine,
        challenger: ServiceEngine | None = None,
        setup: ComparisonSetup | None = None,
    ) -> None:
        self.shown, self.challenger, self._setup = shown, challenger, setup
        self._lock = threading.Lock()
        self._open_requests: Counter[int] = Counter()
        self.unnamed = 0
        # The comparison with the challenger; also ended where another model takes over.
        self.end_comparison: Callable[[], None] = lambda: None
        self._end_following: Callable[[], None] = lambda: None
        self._figures: Callable[[], Mapping[str, float]] = dict

    def set_follower(
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
        with self._counting(lambda: self._engine_for(user)) as engine:
            return await engine.answer(rows, deadline)

    def _engine_for(self, user: str | None) -> ServiceEngine:
        setup = self._setup
        if self.challenger is None or setup is None or setup.way != "ab":
            return self.shown
        if user is None:
            self.unnamed += 1
            return self.shown
        is_challengers = in_challenger(user, setup.secret, setup.share)
        return self.challenger if is_challengers else self.shown

    def using_shown(self) -> AbstractContextManager[ServiceEngine]:
        """While this is open somebody is answered by the shown model otherwise than by ``answer``,
        and its end waits for that."""
        return self._counting(lambda: self.shown)

    @contextmanager
    def _counting(self, choose: Callable[[], ServiceEngine]) -> Iterator[ServiceEngine]:
        # Counted before anything is awaited: who takes over waits for these alone.
        with self._lock:
            engine = choose()
            self._open_requests[id(engine)] += 1
        try:
            yield engine
        finally:
            with self._lock:
                self._open_requests[id(engine)] -= 1

    @property
    def busy(self) -> bool:
        """Whether somebody waits for the shown model."""
        return self._open_requests[id(self.shown)] > 0

    def figures(self) -> Mapping[str, float]:
        result = dict(self.shown.figures())
        if self.challenger is not None:
            challenger_figures = self.challenger.figures().items()
            result |= {f"challenger_{name}": value for name, value in challenger_figures}
            result["requests_without_user"] = self.unnamed
        return {**result, **self._figures()}

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
        while self._open_requests[id(engine)]:
            time.sleep(POLL_INTERVAL_S)
        engine.close()

    async def drain(self) -> None:
        for engine in self._engines:
            await engine.drain()

    def close(self) -> None:
        self.end_comparison()
        self._end_following()
        for engine in self._engines:
            engine.close()


@dataclass(frozen=True, slots=True)
class ComparisonSetup:
    """Two models (``NAME@MARK``) of one ``task``, and how they are compared.

    ``margin`` is a share: of rows, or of the range of outcomes. ``budget`` are labels (shadow) or
    users (ab). Of ab alone: the challenger's ``share`` of users, how long each is watched
    (``window_s``), within which values are held, and the ``salt`` of the hash that parts them.
    ``lag_s`` is how long a request or label may take to stand in the store: younger ones wait, so
    that every replica counts the same rows in the same order.
    """

    shown: str
    challenger: str
    task: str
    way: ComparisonMode = "shadow"
    margin: float = 0.01
    budget: int | None = None
    share: float = 0.5
    window_s: float = 86_400.0
    least: float = 0.0
    most: float | None = None
    salt: str = ""
    lag_s: float = 30.0

    @property
    def key(self) -> str:
        """The name of its state in the store: another comparison has another."""
        plain = {name: value for name, value in asdict(self).items() if name != "lag_s"}
        if self.way == "shadow":
            plain = {
                name: plain[name] for name in ("shown", "challenger", "way", "margin", "budget")
            }
        digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
        return f"comparison: {digest}"

    @property
    def secret(self) -> str:
        """The salt; another pair parts the users anew unless one is given, so that who was together
        in an earlier comparison is not again."""
        return self.salt or f"{self.shown} {self.challenger}"


def refuse_incompatible(shown: EngineFacts, challenger: EngineFacts) -> None:
    """Raise ``RecipeError`` where two models cannot stand for one another: another task, classes or
    columns, or the same model twice."""
    subject = f"the challenger {challenger.model}"
    remedy = f"{REMEDY}holdfast compare {challenger.run} {shown.run} DATA"
    if shown.model == challenger.model:
        raise RecipeError(subject, "is the model that is served", None, "Name another run.")
    if shown.task != challenger.task:
        rule = f"is of another task than the served {shown.model} ({shown.task})"
        raise RecipeError(subject, rule, challenger.task, remedy)
    shown_classes, challenger_classes = set(shown.classes or ()), set(challenger.classes or ())
    if shown_classes != challenger_classes:
        missing, extra = sorted(shown_classes - challenger_classes)[:5], sorted(challenger_classes - shown_classes)[:5]
        rule = f"has other classes than the served {shown.model}"
        difference = "; ".join(
            [f"without {', '.join(missing)}"] * bool(missing) + [f"with {', '.join(extra)}"] * bool(extra)
        )
        raise RecipeError(subject, rule, difference, remedy)
    if lacking := [name for name in challenger.columns if name not in shown.columns]:
        rule = f"reads columns that requests to {shown.model} need not have"
        raise RecipeError(subject, rule, lacking, remedy)
