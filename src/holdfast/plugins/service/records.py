"""The words of the service: what is asked, what is answered, who answers and who looks on.

An *engine* answers rows (``service/engine/``). When an answer is out, what was *served* goes to the
*observers* (drift, the comparison with a challenger) in a thread beside it: they cost no answer a
moment, and where they cannot keep up what they miss is counted.
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
    """What the model says of one row: ``prediction`` is JSON (``None``: left to a person, and
    ``because`` says why), ``confidence`` in [0, 1] where it can tell, and of each class its
    probability."""

    prediction: Any
    confidence: float | None = None
    probabilities: Mapping[str, float] | None = None
    because: str | None = None


@dataclass(frozen=True, slots=True)
class RowPredictions:
    """The answers to the rows of a request, in their order, by ``model`` (``NAME@MARK``).

    ``vectors`` [rows, width] is what the model's last layer read of each row, ``None`` where the
    engine does not give them; a row that could not be read is NaN.
    """

    answers: tuple[RowPrediction, ...]
    model: str
    vectors: Floats | None = None

    def stored(self, *, shown: bool = True) -> tuple[StoredPrediction, ...]:
        """The answers as the store keeps them; ``shown``: they went out."""
        return tuple(
            StoredPrediction(
                place, self.model, a.prediction, a.confidence, a.probabilities, a.because, shown
            )
            for place, a in enumerate(self.answers)
        )


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What is known of an engine before it is asked.

    ``columns`` are those that a row must have (the first is that of a plain text), ``classes`` what
    there are probabilities of, ``precision`` what it computes in and ``because`` why.
    """

    task: str
    model: str
    run: Path
    columns: tuple[str, ...]
    classes: tuple[str, ...] | None
    precision: str
    because: str


class QueueFull(Exception):
    """More is waiting than can be answered in time: come again after ``retry_after`` seconds."""

    def __init__(self, retry_after: float, because: str) -> None:
        super().__init__(because)
        self.retry_after = retry_after
        self.because = because


class DeadlineExceeded(Exception):
    """The time of a request was over before its rows were answered."""


class ServiceEngine(Protocol):
    """One model, asked by one thread. All but ``answer`` and ``drain`` may block."""

    @property
    def facts(self) -> EngineFacts: ...

    @property
    def ready(self) -> bool:
        """Whether it is loaded and warm, and takes requests."""

    def warm(self) -> None:
        """Answer rows of every shape once, so that the first request is as quick as others."""

    async def answer(self, rows: Sequence[Row], deadline: float | None = None) -> RowPredictions:
        """The answers to rows, in their order, before ``deadline`` (``time.monotonic``).

        Raises ``Full`` at once where too much is waiting, ``Late`` where the time is over,
        ``InputError`` where rows cannot be read. Cancelled, it costs no more time.
        """

    def figures(self) -> Mapping[str, float]:
        """Numbers for /metrics: rows and tokens waiting, batches, seconds in the model."""

    async def drain(self) -> None:
        """Take nothing more, and finish what was taken."""

    def close(self) -> None:
        """End the thread."""


@dataclass(frozen=True, slots=True)
class Served:
    """A request that was answered: its rows and what went out (``predictions``); ``user`` is the hash
    that is stored. The answer to a ``conversation`` may have been drawn at chance."""

    request: str
    at: float
    rows: tuple[Row, ...]
    predictions: RowPredictions
    user: str | None = None
    conversation: bool = False


class ServiceObserver(Protocol):
    """Who looks on, in a thread of its own. A defect in one is told once and switches it off; no
    answer ever waits for it."""

    @property
    def name(self) -> str:
        """One word, by which its state is stored and its gauges are called."""

    def observe(self, served: Served) -> None:
        """A request was answered."""

    def add_feedback(self, feedback: Feedback) -> None:
        """Somebody said what is right."""

    def state(self) -> Mapping[str, Any]:
        """Everything that it must know to go on after a restart, as JSON."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a stored state. Raises ``ValueError`` for one of another form."""

    def events(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """What befell since it was asked last, kinds and bodies: alarms, verdicts."""

    def summary(self) -> Mapping[str, Any]:
        """What it knows now, as JSON: for pages and for /metrics (the numbers of its first
        level)."""
