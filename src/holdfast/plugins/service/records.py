"""Records and protocols of the service: requests, predictions, engines and observers.

An *engine* predicts rows (``service/engine/``). After a response is sent, the served request goes
to the *observers* (drift, the comparison with a challenger) in a separate thread: they delay no
response, and requests that they miss under load are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from holdfast.core.records import Floats
from holdfast.plugins.store.records import Feedback, Row, StoredPrediction


@dataclass(frozen=True, slots=True)
class RowPrediction:
    """The prediction for one row: ``prediction`` is JSON (``None``: left to an annotator, with the
    reason in ``because``), ``confidence`` in [0, 1] where the model has one, and the probability of
    each class."""

    prediction: Any
    confidence: float | None = None
    probabilities: Mapping[str, float] | None = None
    because: str | None = None


@dataclass(frozen=True, slots=True)
class RowPredictions:
    """The predictions for the rows of a request, in order, by ``model`` (``NAME@MARK``).

    ``vectors`` [rows, width] are the inputs of the model's last layer, ``None`` where the engine
    does not give them; NaN for a row that could not be read.
    """

    answers: tuple[RowPrediction, ...]
    model: str
    vectors: Floats | None = None

    def stored(self, *, shown: bool = True) -> tuple[StoredPrediction, ...]:
        """The predictions as the store keeps them; ``shown``: they were sent to the client."""
        return tuple(
            StoredPrediction(
                place, self.model, a.prediction, a.confidence, a.probabilities, a.because, shown
            )
            for place, a in enumerate(self.answers)
        )


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What is known of an engine before it predicts.

    ``columns`` are those that a row must have (the first is that of a plain text), ``classes``
    those with probabilities, ``precision`` the precision it computes in and ``because`` why.
    ``label_kind`` is what a text's label is (``class``, ``several`` or ``number``), ``None`` for
    other tasks.
    """

    task: str
    model: str
    run: Path
    columns: tuple[str, ...]
    classes: tuple[str, ...] | None
    precision: str
    because: str
    label_kind: str | None = None


class QueueFull(Exception):
    """More is waiting than can be answered in time: retry after ``retry_after`` seconds."""

    def __init__(self, retry_after: float, because: str) -> None:
        super().__init__(because)
        self.retry_after = retry_after
        self.because = because


class DeadlineExceeded(Exception):
    """A request's deadline passed before its rows were predicted."""


class ServiceEngine(Protocol):
    """One model, used by one thread. All methods but ``answer`` and ``drain`` may block."""

    @property
    def facts(self) -> EngineFacts: ...

    @property
    def ready(self) -> bool:
        """Whether it is loaded and warm, and takes requests."""

    def warm(self) -> None:
        """Predict rows of every shape once, so that the first request is as fast as others."""

    async def answer(self, rows: Sequence[Row], deadline: float | None = None) -> RowPredictions:
        """The predictions for rows, in order, before ``deadline`` (``time.monotonic``).

        Raises ``QueueFull`` at once where too much is waiting, ``DeadlineExceeded`` after the
        deadline, ``InputError`` where rows cannot be read. A cancelled call costs no more time.
        """

    def figures(self) -> Mapping[str, float]:
        """Numbers for /metrics: rows and tokens waiting, batches, seconds in the model."""

    async def drain(self) -> None:
        """Accept no more requests, and finish the accepted ones."""

    def close(self) -> None:
        """End the thread."""


@dataclass(frozen=True, slots=True)
class Served:
    """An answered request: its rows and the ``predictions`` sent; ``user`` is the stored hash. The
    answer to a ``conversation`` may have been sampled at random."""

    request: str
    at: float
    rows: tuple[Row, ...]
    predictions: RowPredictions
    user: str | None = None
    conversation: bool = False


class ServiceObserver(Protocol):
    """An observer of served requests, in a separate thread. One that raises is reported once and
    removed; no response ever waits for it."""

    @property
    def name(self) -> str:
        """One word: the key of its state in the store, and the prefix of its gauges."""

    def observe(self, served: Served) -> None:
        """Process an answered request."""

    def add_feedback(self, feedback: Feedback) -> None:
        """Process a label."""

    def state(self) -> Mapping[str, Any]:
        """Everything that it needs to continue after a restart, as JSON."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a stored state. Raises ``ValueError`` for an invalid one."""

    def events(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """New events since the last call, as types and bodies: alarms, verdicts."""

    def summary(self) -> Mapping[str, Any]:
        """What it knows now, as JSON: for pages and for /metrics (the top-level numbers)."""
