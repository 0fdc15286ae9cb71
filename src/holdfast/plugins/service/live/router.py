"""Which model answers: the model in service, or a challenger, and how the two are compared.

``EngineRouter`` is itself an engine, so the service has only one.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

from holdfast.core.errors import RecipeError
from holdfast.core.files import json_digest
from holdfast.plugins.live.arms import in_challenger
from holdfast.plugins.service.records import EngineFacts, RowPredictions, ServiceEngine
from holdfast.plugins.store.records import Row

POLL_INTERVAL_S = 0.01
ComparisonMode = Literal["shadow", "ab"]
REMEDY = "Train the challenger for the same task and classes, or compare the two on a file: "


class EngineRouter:
    """Routes requests to the model in service (``shown``) or to a ``challenger``, and replaces a
    model without losing a request.

    With a ``setup`` of way ``ab`` the challenger answers the users of its arm; ``unnamed`` counts
    the requests without a user, which the shown model answers.
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
        # Ends the comparison with the challenger; also called where another model takes over.
        self.end_comparison: Callable[[], None] = lambda: None
        self._end_following: Callable[[], None] = lambda: None
        self._figures: Callable[[], Mapping[str, float]] = dict

    def set_follower(
        self, close: Callable[[], None], figures: Callable[[], Mapping[str, float]]
    ) -> None:
        """Call ``close`` before the engines end, and include ``figures`` in this engine's
        figures."""
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
        """As ``ServiceEngine.answer``; ``user`` is the stored hash of the user."""
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
        """A context for users of the shown model that do not call ``answer``; the model is not
        closed within it."""
        return self._counting(lambda: self.shown)

    @contextmanager
    def _counting(self, choose: Callable[[], ServiceEngine]) -> Iterator[ServiceEngine]:
        # Counted before anything is awaited: ``retire`` waits only for these requests.
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
        """Whether a request waits for the shown model."""
        return self._open_requests[id(self.shown)] > 0

    def figures(self) -> Mapping[str, float]:
        result = dict(self.shown.figures())
        if self.challenger is not None:
            challenger_figures = self.challenger.figures().items()
            result |= {f"challenger_{name}": value for name, value in challenger_figures}
            result["requests_without_user"] = self.unnamed
        return {**result, **self._figures()}

    def take_over(self, engine: ServiceEngine) -> list[ServiceEngine]:
        """Route all further requests to ``engine``, without a challenger. Returns the replaced
        engines, to be passed to ``retire``."""
        with self._lock:
            before = self._engines
            self.shown, self.challenger, self._setup = engine, None, None
        return [one for one in before if one is not engine]

    def retire(self, engine: ServiceEngine) -> None:
        """Close a replaced engine once its open requests are answered; each ends by its deadline at
        the latest."""
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

    ``margin`` is a share: of rows, or of the range of outcomes. ``budget`` is in labels (shadow) or
    users (ab). Only for ab: the challenger's ``share`` of users, how long each user is observed
    (``window_s``), the range ``least`` to ``most`` that values are clipped to, and the ``salt`` of
    the hash that assigns users. ``lag_s`` is how long a request or label may take to reach the
    store: younger ones wait, so that every replica counts the same rows in the same order.
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
        """The name of its state in the store; a different comparison has a different one."""
        plain = {name: value for name, value in asdict(self).items() if name != "lag_s"}
        if self.way == "shadow":
            plain = {
                name: plain[name] for name in ("shown", "challenger", "way", "margin", "budget")
            }
        return f"comparison: {json_digest(plain)[:16]}"

    @property
    def secret(self) -> str:
        """The salt. By default another pair of models assigns users differently, so that the groups
        of an earlier comparison are not reused."""
        return self.salt or f"{self.shown} {self.challenger}"


def refuse_incompatible(shown: EngineFacts, challenger: EngineFacts) -> None:
    """Raise ``RecipeError`` where one model cannot replace the other: another task, label type,
    classes or columns, or the same model twice."""
    subject = f"the challenger {challenger.model}"
    remedy = f"{REMEDY}holdfast compare {challenger.run} {shown.run} DATA"
    if shown.model == challenger.model:
        raise RecipeError(subject, "is the served model itself", None, "Name another run.")
    if shown.task != challenger.task:
        rule = f"has another task than the served {shown.model} ({shown.task})"
        raise RecipeError(subject, rule, challenger.task, remedy)
    if shown.label_kind != challenger.label_kind:
        rule = f"has another label type than the served {shown.model} ({shown.label_kind})"
        raise RecipeError(subject, rule, challenger.label_kind, remedy)
    shown_classes, challenger_classes = set(shown.classes or ()), set(challenger.classes or ())
    if shown_classes != challenger_classes:
        missing, extra = (
            sorted(shown_classes - challenger_classes)[:5],
            sorted(challenger_classes - shown_classes)[:5],
        )
        rule = f"has other classes than the served {shown.model}"
        difference = "; ".join(
            [f"without {', '.join(missing)}"] * bool(missing)
            + [f"with {', '.join(extra)}"] * bool(extra)
        )
        raise RecipeError(subject, rule, difference, remedy)
    if lacking := [name for name in challenger.columns if name not in shown.columns]:
        rule = f"needs columns that requests to {shown.model} may not have"
        raise RecipeError(subject, rule, lacking, remedy)
