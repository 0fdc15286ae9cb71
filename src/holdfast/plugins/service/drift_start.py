"""The watch for drift of a service that starts, without keeping it waiting.

The reference lies in the run's folder. Where it does not yet, it is made of the rows that the run
was made of, by a pass of the model, in the thread of the observers when the first request was seen:
no answer waits for it. Where it cannot be made the service goes on without the watch, and says why.
When another model takes the place of the one in service the watch begins anew, by its reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from holdfast.core.decisions import DecisionListener, decisions_to
from holdfast.core.errors import InputError, RunError
from holdfast.core.records import Decision
from holdfast.core.run_files import read_result
from holdfast.core.wording import counted
from holdfast.plugins.drift.run_rows import REFERENCE
from holdfast.plugins.drift.vectors import FEWEST, LEAST_REFERENCE
from holdfast.plugins.service.drift_observer import NAME, Drifting, watch_drift
from holdfast.plugins.service.records import EngineFacts, Served
from holdfast.plugins.service.settings import Serving
from holdfast.plugins.store.records import Feedback, RequestOutcome


class StartingDrift:
    """The observer, before and after it knows its reference; ``load`` makes it, of the model in
    service, whose name ``model`` tells."""

    def __init__(
        self,
        load: Callable[[], Drifting],
        log: Callable[[str], None],
        model: Callable[[], str] = lambda: "",
    ) -> None:
        self._load, self._log, self._model = load, log, model
        self._of = model()
        self._inner: Drifting | None = None
        self._pending: Mapping[str, Any] | None = None
        self._why = ""
        # Of the model before, not told yet.
        self._left: list[tuple[str, Mapping[str, Any]]] = []

    @property
    def name(self) -> str:
        return NAME

    def begin(self) -> None:
        """Make the watch, or learn why there is none."""
        if self._inner is not None or self._why:
            return
        try:
            self._inner = self._load()
        except InputError as error:
            self._why = str(error).split("\n")[0]
            self._log(f"drift is not watched: {error}")
            return
        if self._pending is not None:
            state, self._pending = self._pending, None
            try:
                self._inner.restore(state)
            except ValueError as error:
                self._log(f"drift begins anew: {error}")

    def seen(self, served: Served) -> None:
        if (now := self._model()) != self._of:
            self._log(f"drift: from here on of {now}, which took the place of {self._of}")
            if self._inner is not None:
                self._left += self._inner.events()
            self._of, self._inner, self._pending, self._why = now, None, None, ""
        self.begin()
        if self._inner is not None:
            self._inner.seen(served)

    def labelled(self, feedback: Feedback) -> None:
        if self._inner is not None:
            self._inner.labelled(feedback)

    def came_of_it(self, outcome: RequestOutcome) -> None:
        """Nothing, as ``Drifting`` has it."""

    def state(self) -> Mapping[str, Any]:
        # A service may end when another model serves already and has answered nothing yet.
        mine = {"model": self._of}
        if self._inner is not None:
            return {**mine, **self._inner.state()}
        return {**mine, **(self._pending or {"by": None})}

    def restore(self, state: Mapping[str, Any]) -> None:
        if (of := state.get("model", self._of)) != self._of:
            raise ValueError(f"what is stored is of {of}")
        if self._inner is None:
            self._pending = dict(state)
        else:
            self._inner.restore(state)

    def events(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        left, self._left = self._left, []
        return [*left, *(() if self._inner is None else self._inner.events())]

    def said(self) -> Mapping[str, Any]:
        if self._inner is not None:
            return {"watched": 1, **self._inner.said()}
        return {"watched": 0, "why": self._why or "no request was seen yet"}


def drift_observers(
    served: Callable[[], EngineFacts],
    settings: Serving,
    log: Callable[[str], None],
    notify: DecisionListener,
) -> list[StartingDrift]:
    """The watch for drift of the run that is ``served`` at a time; none where ``serve.drift`` is
    false."""
    if not settings.drift:
        return []

    def load() -> Drifting:
        # In a thread of its own, where nobody else listens.
        with decisions_to(lambda one: log(f"reference of drift: {one.because}")):
            return watch_drift(
                served(),
                between=settings.between_alarms,
                log_texts=settings.log_texts,
                mask=settings.mask,
            )

    made = StartingDrift(load, log, lambda: served().model)
    run = served().run
    if (run / REFERENCE).is_file():
        made.begin()
    else:
        because = f"{run} has no {REFERENCE} yet; it is made when the first request was seen"
        notify(Decision("drift", "watched from the first request on", because))
    try:
        rows = (read_result(run).get("valid") or {}).get("n")
    except RunError:
        rows = None
    if isinstance(rows, int) and rows < LEAST_REFERENCE:
        few = (
            f"the run has {counted(rows, 'validation row')} to compare them with, and it takes "
            f"{LEAST_REFERENCE}; the classes that are answered and how sure the model is are "
            f"watched from {FEWEST} rows on"
        )
        notify(Decision("drift", "inputs are not watched", few, prominent=True))
    return [made]
