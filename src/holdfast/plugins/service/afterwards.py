"""What happens when an answer is out: personal data are taken out of what is kept of it, and the
observers look at it, in a thread beside.

Its queue is bounded; where it is full, what comes is dropped and counted: no answer ever waits.
What is written into the store goes another way (``plugins.store.writer``), so that a full disk
keeps no observer waiting, and a slow observer no record.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from holdfast.core.errors import StoreError
from holdfast.core.records import Floats
from holdfast.plugins.service.records import Served, ServiceObserver
from holdfast.plugins.store.records import Event, Feedback, Row, StoredPrediction, StoredRequest
from holdfast.quality.clean.texts import mask_personal

if TYPE_CHECKING:
    from holdfast.plugins.store.store import Store


T = TypeVar("T")
Log = Callable[[str], None]

MOST_ROWS = 50_000
TOGETHER = 64
# Of what is logged of an event [characters].
LONGEST_SAID = 300
STATE_EVERY_S, HEAR_EVERY_S = 30.0, 2.0
# What requests come to is worked out for all of so long at once: for each it would cost far more.
# A thread that wakes for each of them takes turns with the one that answers.
HEAR_AFTER_S, GATHER_S = 0.5, 0.02
STATE = "observer: "
# What each said last, for pages that know the store alone.
SAID = "said: "
# Beyond it a picture or a file stands in the place of a text: its letters say nothing.
LONGEST_MASKED = 1_000_000


class Queue(Generic[T]):
    """A queue bounded by rows, for one thread that takes."""

    def __init__(self, most: int = MOST_ROWS) -> None:
        self._most = most
        self._items: deque[tuple[T, int]] = deque()
        self._there = threading.Condition()
        self.rows = 0
        self.dropped = 0
        self.closed = False

    def put(self, item: T, rows: int = 1) -> bool:
        """Whether there was room; one item alone always has."""
        with self._there:
            if self.closed or (self._items and self.rows + rows > self._most):
                self.dropped += 1
                return False
            self._items.append((item, rows))
            self.rows += rows
            self._there.notify()
            return True

    def take(self, most: int, wait_s: float) -> list[T]:
        """Up to ``most`` items, once there is one; none where the time is over, or it is closed and
        empty."""
        with self._there:
            if not self._items and not self.closed:
                self._there.wait(wait_s)
            taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self.rows -= sum(rows for _, rows in taken)
            return [item for item, _ in taken]

    def close(self) -> None:
        """Nothing more is taken in."""
        with self._there:
            self.closed = True
            self._there.notify_all()

    def __len__(self) -> int:
        return len(self._items)


class Watching:
    """The thread in which ``observers`` look on. ``dropped`` counts what they missed."""

    def __init__(
        self,
        observers: Sequence[ServiceObserver],
        store: Store | None,
        log: Log,
        model: Callable[[], str] = lambda: "",
    ) -> None:
        self.observers: list[ServiceObserver] = []
        self._model = model
        self._store, self._log = store, log
        self._queue: Queue[Served | Feedback] = Queue()
        self.defects = 0
        self._saved_at = time.monotonic()
        self._heard_at = -HEAR_EVERY_S
        self._changed = False
        self._said: dict[str, Mapping[str, Any]] = {}
        for one in observers:
            self.add(one)
        self._thread = threading.Thread(target=self._run, name="observers", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """What came while the queue was full."""
        return self._queue.dropped

    def said(self) -> dict[str, Mapping[str, Any]]:
        """What each said last; it is renewed by their own thread."""
        return dict(self._said)

    def put(self, item: Served | Feedback) -> None:
        """Show it to all of them, soon."""
        if self.observers:
            self._queue.put(item, len(item.rows) if isinstance(item, Served) else 1)

    def settle(self, within_s: float) -> bool:
        """Wait until they have seen what was put in, for at most so long: whether they have."""
        until = time.monotonic() + within_s
        while (len(self._queue) or self._changed) and time.monotonic() < until:
            time.sleep(0.01)
        return not len(self._queue) and not self._changed

    def close(self, within_s: float) -> None:
        """Look at what is there, and remember what they know."""
        self._queue.close()
        self._thread.join(within_s)

    def _run(self) -> None:
        unheard = False
        while True:
            items = self._queue.take(TOGETHER, HEAR_AFTER_S if unheard else 1.0)
            self._changed = True
            for item in items:
                self._each(partial(_show, item))
            unheard = unheard or bool(items)
            done = self._queue.closed and not len(self._queue)
            since = time.monotonic() - self._heard_at
            # An observer may come to know something by itself.
            if done or (unheard and since > HEAR_AFTER_S) or since > HEAR_EVERY_S:
                self._heard_at = time.monotonic()
                self._each(self._keep_words)
                self._each(self._keep_events)
                unheard = False
            self._changed = unheard
            if done or time.monotonic() - self._saved_at > STATE_EVERY_S:
                self._saved_at = time.monotonic()
                self._each(self._save)
            if done:
                return
            if items and not self._queue.closed:
                time.sleep(GATHER_S)

    def _keep_words(self, one: ServiceObserver) -> None:
        self._said[one.name] = one.said()

    def _keep_events(self, one: ServiceObserver) -> None:
        for kind, body in one.events():
            because = str(body.get("because") or "")[:LONGEST_SAID]
            self._log(f"{kind}: {because}" if because else f"{one.name}: {kind}")
            if self._store is None:
                continue
            try:
                self._store.append(Event(kind, time.time(), dict(body)))
            except StoreError as error:
                self._log(f"{one.name}: {kind} could not be stored: {error}")

    def add(self, one: ServiceObserver) -> None:
        """Have one more look on, from where it left off in the store."""
        if self._store is not None:
            try:
                if (found := self._store.state(self._key(one))) is not None:
                    one.restore(found)
            except (StoreError, ValueError) as error:
                self._log(f"{one.name} begins anew: {error}")
        self.observers.append(one)

    def _key(self, one: ServiceObserver) -> str:
        # One store may serve several models, and what was seen of one says nothing of another.
        return f"{STATE}{one.name} {self._model()}".strip()

    def _save(self, one: ServiceObserver) -> None:
        if self._store is None:
            return
        try:
            self._store.save_state(self._key(one), one.state(), time.time())
            self._store.save_state(SAID + one.name, dict(one.said()), time.time())
        except StoreError as error:
            self._log(f"the state of {one.name} could not be stored: {error}")

    def _each(self, do: Callable[[ServiceObserver], None]) -> None:
        """``do`` something with each; one with a defect is switched off."""
        for one in list(self.observers):
            try:
                do(one)
            except Exception as error:
                self.defects += 1
                self.observers.remove(one)
                kind = type(error).__name__
                self._log(f"a defect switched the observer {one.name} off: {kind}")


def _show(item: Served | Feedback, one: ServiceObserver) -> None:
    if isinstance(item, Served):
        one.seen(item)
    else:
        one.labelled(item)


def masked_row(row: Row) -> Row:
    """The row with ``[EMAIL]`` in the place of an address and so on, in every text in it, however
    deep; see ``quality/personal.py`` for what is known."""
    masked_one: Row = _masked(row)
    return masked_one


def masked_request(request: StoredRequest) -> StoredRequest:
    """The request with its texts masked, and with those of its answers that a model wrote. Takes
    tens of microseconds a text: not on the way of an answer."""
    texts = tuple(replace(one, row=masked_row(one.row)) for one in request.texts)
    return replace(request, texts=texts, predictions=masked_said(request.predictions))


def masked_said(said: Sequence[StoredPrediction]) -> tuple[StoredPrediction, ...]:
    """Answers with what a model wrote masked: it may say again what it was asked. One with
    probabilities is the name of a class."""
    return tuple(
        one
        if one.probabilities is not None
        else replace(one, prediction=_masked(one.prediction, numbers=False))
        for one in said
    )


def packed(vectors: Floats | None, index: int) -> bytes | None:
    """The vector of a row as it is stored: float16, the first number first."""
    return None if vectors is None else np.asarray(vectors[index]).astype("<f2").tobytes()


def _masked(value: Any, *, numbers: bool = True) -> Any:
    if isinstance(value, str):
        return mask_personal(value) if len(value) <= LONGEST_MASKED else value
    if isinstance(value, int) and numbers and not isinstance(value, bool):
        # A card or an account as a JSON number is one all the same.
        written = str(value)
        return value if (shown := mask_personal(written)) == written else shown
    if isinstance(value, Mapping):
        return {_masked(name): _masked(one, numbers=numbers) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked(one, numbers=numbers) for one in value]
    return value
