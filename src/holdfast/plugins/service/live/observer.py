"""The live comparison as an observer of the service: the challenger is asked, the store is looked
at every few seconds, and what it all comes to is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from holdfast.core.errors import StoreError
from holdfast.plugins.service.live.look import LiveState, look
from holdfast.plugins.service.live.setup import Setup
from holdfast.plugins.service.live.shadow import Shadowing
from holdfast.plugins.service.records import Served
from holdfast.plugins.store.records import Feedback, RequestOutcome
from holdfast.plugins.store.store import Store

NAME = "comparison"
LOOK_S = 2.0
# A look may take a twentieth of the time, so that it never becomes the service's work.
SHARE = 20


class Comparing:
    """The observer. ``shadowing`` is there where both models answer each request."""

    def __init__(
        self,
        setup: Setup,
        store: Store,
        shadowing: Shadowing | None = None,
        log: Callable[[str], None] = lambda _: None,
        look_s: float = LOOK_S,
    ) -> None:
        self.setup, self.shadowing = setup, shadowing
        self._store, self._log, self._look_s = store, log, look_s
        self._said: dict[str, Any] = {}
        self._verdict: str | None = None
        self._failing = False
        self._conversations = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="comparison", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        return NAME

    def seen(self, served: Served) -> None:
        over = self._end.is_set() or served.answered.model != self.setup.shown
        if over or self.shadowing is None:
            return
        if served.conversation:
            # Its words may be drawn at chance, which says nothing of the model.
            self._conversations += 1
        else:
            self.shadowing.put(served)

    def labelled(self, feedback: Feedback) -> None:
        """Nothing: the store brings every label in its order."""

    def came_of_it(self, outcome: RequestOutcome) -> None:
        """Nothing, as of labels."""

    def state(self) -> Mapping[str, Any]:
        """Nothing of its own: the store's rows and a cursor are all that it knows."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to go on from."""

    def events(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """None: the look that comes to a verdict writes it down."""
        return ()

    def said(self) -> Mapping[str, Any]:
        found = dict(self._said)
        if self._end.is_set():
            found["ended"] = "another model took over"
        if self.shadowing is not None:
            found["conversations_not_compared"] = self._conversations
            found["challenger_requests"] = self.shadowing.figures()
            found |= {f"challenger_{n}": v for n, v in self.shadowing.figures().items()}
        return found

    def close(self) -> None:
        """End the threads. What the store knows stays. May be called twice."""
        self._end.set()
        if self.shadowing is not None:
            self.shadowing.close()
        self._thread.join(5.0)

    def _run(self) -> None:
        pause = 0.0
        while not self._end.wait(pause):
            started = time.monotonic()
            try:
                self._look()
            except StoreError as error:
                if not self._failing:
                    self._log(f"the comparison waits for the store: {error}")
                self._failing = True
            except Exception as error:
                # What a defect says may hold a text.
                kind = type(error).__name__
                self._said = {**self._said, "off": f"a defect switched it off: {kind}"}
                self._log(f"a defect switched the comparison off: {kind}")
                return
            pause = max(self._look_s, SHARE * (time.monotonic() - started))

    def _look(self) -> None:
        found: LiveState = look(self._store, self.setup, time.time())
        self._failing = False
        self._said = found.said()
        verdict = self._said["verdict"]
        if verdict != self._verdict and (self._verdict is not None or verdict != "undecided"):
            self._log(f"comparison of {self.setup.challenger}: {self._said['because']}")
        self._verdict = verdict
