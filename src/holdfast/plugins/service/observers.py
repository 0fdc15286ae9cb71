"""Work done after a response is sent: personal data are masked in what is stored, and the observers
process the request in their own thread.

The queue is bounded. Where it is full, new items are dropped and counted, so that no response ever
waits. Records are written to the store by another thread (``plugins.store.writer``): a full disk
delays no observer, and a slow observer delays no record.
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

MAX_QUEUED_ROWS = 50_000
BATCH = 64
# Maximum length of the reason logged with an event [characters].
MAX_REASON = 300
STATE_EVERY_S, SUMMARY_EVERY_S = 30.0, 2.0
# Summaries are computed at most this often: one for each request would cost far more, and a thread
# that wakes for each request competes with the one that answers.
SUMMARY_AFTER_S, GATHER_S = 0.5, 0.02
STATE = "observer: "
# The latest summary of each observer, for pages that read only the store.
SUMMARY = "said: "
# Longer values are images or files in place of a text: masking them is pointless.
MAX_MASKED = 1_000_000


class Queue(Generic[T]):
    """A queue for one consumer thread, bounded by rows."""

    def __init__(self, max_rows: int = MAX_QUEUED_ROWS) -> None:
        self._max_rows = max_rows
        self._items: deque[tuple[T, int]] = deque()
        self._condition = threading.Condition()
        self.rows = 0
        self.dropped = 0
        self.closed = False

    def put(self, item: T, rows: int = 1) -> bool:
        """Add an item. Return whether there was room; an empty queue accepts any item."""
        with self._condition:
            if self.closed or (self._items and self.rows + rows > self._max_rows):
                self.dropped += 1
                return False
            self._items.append((item, rows))
            self.rows += rows
            self._condition.notify()
            return True

    def take(self, max_items: int, wait_s: float) -> list[T]:
        """Up to ``max_items`` items as soon as there is one; an empty list after ``wait_s``
        seconds, or where the queue is closed and empty."""
        with self._condition:
            if not self._items and not self.closed:
                self._condition.wait(wait_s)
            items = [self._items.popleft() for _ in range(min(max_items, len(self._items)))]
            self.rows -= sum(rows for _, rows in items)
            return [item for item, _ in items]

    def close(self) -> None:
        """Accept no more items."""
        with self._condition:
            self.closed = True
            self._condition.notify_all()

    def __len__(self) -> int:
        return len(self._items)


class ObserverThread:
    """The thread that runs the ``observers``. ``dropped`` counts the items that they missed."""

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
        self._summarized_at = -SUMMARY_EVERY_S
        self._busy = False
        self._summaries: dict[str, Mapping[str, Any]] = {}
        for observer in observers:
            self.add(observer)
        self._thread = threading.Thread(target=self._run, name="observers", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Items dropped because the queue was full."""
        return self._queue.dropped

    def summaries(self) -> dict[str, Mapping[str, Any]]:
        """The latest summary of each observer; the thread refreshes them."""
        return dict(self._summaries)

    def notify(self, item: Served | Feedback) -> None:
        """Pass an item to all observers, asynchronously."""
        if self.observers:
            self._queue.put(item, len(item.rows) if isinstance(item, Served) else 1)

    def wait_until_idle(self, within_s: float) -> bool:
        """Wait until the observers have processed every item, at most ``within_s`` seconds. Return
        whether they have."""
        until = time.monotonic() + within_s
        while (len(self._queue) or self._busy) and time.monotonic() < until:
            time.sleep(0.01)
        return not len(self._queue) and not self._busy

    def close(self, within_s: float) -> None:
        """Process the remaining items and store the observers' states."""
        self._queue.close()
        self._thread.join(within_s)

    def _run(self) -> None:
        unsummarized = False
        while True:
            items = self._queue.take(BATCH, SUMMARY_AFTER_S if unsummarized else 1.0)
            self._busy = True
            for item in items:
                self._for_each(partial(_deliver, item))
            unsummarized = unsummarized or bool(items)
            done = self._queue.closed and not len(self._queue)
            since = time.monotonic() - self._summarized_at
            # An observer may find something without a new item.
            if done or (unsummarized and since > SUMMARY_AFTER_S) or since > SUMMARY_EVERY_S:
                self._summarized_at = time.monotonic()
                self._for_each(self._store_summary)
                self._for_each(self._store_events)
                unsummarized = False
            self._busy = unsummarized
            if done or time.monotonic() - self._saved_at > STATE_EVERY_S:
                self._saved_at = time.monotonic()
                self._for_each(self._save)
            if done:
                return
            if items and not self._queue.closed:
                time.sleep(GATHER_S)

    def _store_summary(self, observer: ServiceObserver) -> None:
        self._summaries[observer.name] = observer.summary()

    def _store_events(self, observer: ServiceObserver) -> None:
        for event_type, payload in observer.events():
            because = str(payload.get("because") or "")[:MAX_REASON]
            self._log(f"{event_type}: {because}" if because else f"{observer.name}: {event_type}")
            if self._store is None:
                continue
            try:
                self._store.append(Event(event_type, time.time(), dict(payload)))
            except StoreError as error:
                self._log(f"{observer.name}: {event_type} could not be stored: {error}")

    def add(self, observer: ServiceObserver) -> None:
        """Add an observer. Its state is restored from the store."""
        if self._store is not None:
            try:
                if (state := self._store.state(self._key(observer))) is not None:
                    observer.restore(state)
            except (StoreError, ValueError) as error:
                self._log(f"{observer.name} starts again without its stored state: {error}")
        self.observers.append(observer)

    def _key(self, observer: ServiceObserver) -> str:
        # One store may serve several models, and an observer's state is specific to one model.
        return f"{STATE}{observer.name} {self._model()}".strip()

    def _save(self, observer: ServiceObserver) -> None:
        if self._store is None:
            return
        try:
            self._store.save_state(self._key(observer), observer.state(), time.time())
            self._store.save_state(SUMMARY + observer.name, dict(observer.summary()), time.time())
        except StoreError as error:
            self._log(f"the state of {observer.name} could not be stored: {error}")

    def _for_each(self, action: Callable[[ServiceObserver], None]) -> None:
        """Call ``action`` with each observer; an observer that raises is removed."""
        for observer in list(self.observers):
            try:
                action(observer)
            except Exception as error:
                self.defects += 1
                self.observers.remove(observer)
                because = f"a bug in Holdfast: {type(error).__name__}"
                self._log(f"the observer {observer.name} was stopped by {because}")


def _deliver(item: Served | Feedback, observer: ServiceObserver) -> None:
    if isinstance(item, Served):
        observer.observe(item)
    else:
        observer.add_feedback(item)


def masked_row(row: Row) -> Row:
    """The row with personal data masked (``[EMAIL]``, …) in every text in it, at any depth; see
    ``quality/personal.py`` for the categories."""
    result: Row = _masked(row)
    return result


def masked_feedback(item: Feedback, label_type: str) -> Feedback:
    """The label with personal data masked in its row and, where the label is a text, in itself. A
    class name stays."""
    label = _masked(item.label, numbers=False) if label_type == "text" else item.label
    return replace(item, label=label, row=None if item.row is None else masked_row(item.row))


def masked_request(request: StoredRequest) -> StoredRequest:
    """The request with its texts and generated answers masked. Takes tens of microseconds a text,
    so it does not run before the response is sent."""
    texts = tuple(replace(text, row=masked_row(text.row)) for text in request.texts)
    return replace(request, texts=texts, predictions=masked_predictions(request.predictions))


def masked_predictions(predictions: Sequence[StoredPrediction]) -> tuple[StoredPrediction, ...]:
    """Predictions with generated text masked, since it may repeat the input. A prediction with
    probabilities is a class name and stays."""
    return tuple(
        stored
        if stored.probabilities is not None
        else replace(stored, prediction=_masked(stored.prediction, numbers=False))
        for stored in predictions
    )


def packed_vector(vectors: Floats | None, index: int) -> bytes | None:
    """The vector of a row as it is stored: little-endian float16."""
    return None if vectors is None else np.asarray(vectors[index]).astype("<f2").tobytes()


def _masked(value: Any, *, numbers: bool = True) -> Any:
    if isinstance(value, str):
        return mask_personal(value) if len(value) <= MAX_MASKED else value
    if isinstance(value, int) and numbers and not isinstance(value, bool):
        # A card or account number may also be a JSON number.
        written = str(value)
        return value if (hidden := mask_personal(written)) == written else hidden
    if isinstance(value, Mapping):
        return {_masked(name): _masked(one, numbers=numbers) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked(one, numbers=numbers) for one in value]
    return value
