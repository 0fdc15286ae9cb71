"""A batch source of augmented rows, made by a separate thread one block of updates ahead."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Ints
from holdfast.core.updates import BatchSource, Draw, RowPool
from holdfast.data.table import TrainSplit

T = TypeVar("T")
# Updates whose rows are made together, with one tokenizer call.
BLOCK = 8


def check_train(train: object) -> None:
    """Refuse to augment anything but training rows."""
    if not isinstance(train, TrainSplit):
        raise Defect("enrichment", "accepts training rows only", type(train).__name__)


class RowTurn(NamedTuple):
    """Identifies one use of a row: the ``epoch``, and how often the row was used in it before
    (``again``, from 0). In a source without epochs each update counts as an epoch."""

    epoch: int
    again: int


class MakesForms(Protocol):
    """Makes other forms of rows."""

    @property
    def steps(self) -> int:
        """How many updates are made in one call, at most ``BLOCK``."""

    def __call__(self, rows: Ints, turns: Sequence[RowTurn]) -> tuple[Any, Ints]:
        """Encoded rows, and the position among them of each of ``rows`` [n] (positions among the
        training examples) in the form of its turn. A form depends only on its row and its turn."""


class Ahead:
    """Computes numbered items in a separate thread, the next one in advance."""

    def __init__(self) -> None:
        self._worker: ThreadPoolExecutor | None = None
        self._made: dict[int, Future[Any]] = {}
        self._of: object = None
        self._make: Callable[[int], Any] | None = None

    def get(self, of: object, number: int, begin: Callable[[], Callable[[int], T]]) -> T:
        """The item ``number`` of ``of``, computed by the function that ``begin`` returns; ``begin``
        is called once per ``of``."""
        if self._of is not of or self._make is None:
            self._of, self._make, self._made = of, begin(), {}
        self._made = {n: one for n, one in self._made.items() if n >= number}
        for item in (number, number + 1):
            if item not in self._made:
                self._made[item] = self._thread().submit(self._make, item)
        result: T = self._made[number].result()
        return result

    def _thread(self) -> ThreadPoolExecutor:
        if self._worker is None:
            # One thread, so that items need not be thread-safe.
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="enrich")
            weakref.finalize(self, self._worker.shutdown, wait=False, cancel_futures=True)
        return self._worker


@dataclass(frozen=True, slots=True, eq=False)
class Enriched:
    """A source that returns the draws of ``inner`` with augmented rows. Draws with their own
    examples are unchanged.

    The result depends only on the pool and the step; computing it in advance only saves time.
    """

    inner: BatchSource
    forms: MakesForms
    ahead: Ahead = field(default_factory=Ahead, repr=False)

    @property
    def name(self) -> str:
        return f"{self.inner.name}, enriched"

    @property
    def has_epochs(self) -> bool:
        return self.inner.has_epochs

    def steps_per_epoch(self, pool: RowPool) -> int:
        return self.inner.steps_per_epoch(pool)

    def draw(self, pool: RowPool, step: int) -> Draw:
        block, place = divmod(step, self.forms.steps)
        draws: list[Draw] = self.ahead.get(
            pool, block, lambda: _Blocks(self.inner, self.forms, pool).make
        )
        return draws[place]


class _Blocks:
    """The blocks of one pool, made by one thread."""

    def __init__(self, inner: BatchSource, forms: MakesForms, pool: RowPool) -> None:
        self._inner, self._forms = inner, forms
        # A separate pool for this thread: a pool keeps an epoch, and the loop's may be at another.
        self._pool = RowPool(pool.examples, pool.batch, pool.seed, pool.phase)
        self._agains: tuple[int, list[Ints]] = (-1, [])

    def make(self, number: int) -> list[Draw]:
        first = number * self._forms.steps
        steps = range(first, first + self._forms.steps)
        draws = {step: self._inner.draw(self._pool, step) for step in steps}
        plain = {step: draw for step, draw in draws.items() if draw.examples is None}
        if not plain:
            return list(draws.values())
        turns = [turn for step, draw in plain.items() for turn in self._turns(step, draw.rows)]
        rows = np.concatenate([draw.rows for draw in plain.values()])
        examples, places = self._forms(rows, turns)
        examples = self._weighted(examples, places, rows)
        start = 0
        for step, draw in plain.items():
            here = places[start : start + len(draw)]
            draws[step], start = Draw(draw.rows, examples, here), start + len(draw)
        return list(draws.values())

    def _weighted(self, examples: Any, places: Ints, rows: Ints) -> Any:
        """The forms, each with the weight of its row, where rows have weights."""
        weights = getattr(self._pool.examples, "weights", None)
        if weights is None:
            return examples
        of_forms = np.ones(len(examples))
        of_forms[places] = weights[rows]
        return replace(examples, weights=of_forms)

    def _turns(self, step: int, rows: Ints) -> list[RowTurn]:
        if not self._inner.has_epochs:
            return [RowTurn(step, int(again)) for again in occurrences([rows])[0]]
        count = self._inner.steps_per_epoch(self._pool)
        epoch, index = divmod(step, count)
        if self._agains[0] != epoch:
            positions = range(epoch * count, (epoch + 1) * count)
            drawn = [self._inner.draw(self._pool, one).rows for one in positions]
            self._agains = (epoch, occurrences(drawn))
        return [RowTurn(epoch, int(again)) for again in self._agains[1][index]]


def occurrences(draws: Sequence[Ints]) -> list[Ints]:
    """For each row of each draw, how often it occurred in these draws before."""
    rows = np.concatenate(draws)
    order = np.argsort(rows, kind="stable")
    place = np.arange(len(rows))
    first = np.concatenate([[True], rows[order][1:] != rows[order][:-1]])
    counts = np.empty(len(rows), dtype=np.int64)
    counts[order] = place - np.maximum.accumulate(np.where(first, place, 0))
    return np.split(counts, np.cumsum([len(draw) for draw in draws])[:-1])
