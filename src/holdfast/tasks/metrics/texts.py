"""What a metric of written texts is, and the registry of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from holdfast.core.discovery import Registry
from holdfast.core.records import Floats, Ints


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts that a model wrote, ``texts``, and what was wanted, ``references``; ``sources`` they
    were written from and ``tables`` that code of a row runs on, where there are any; all [n]."""

    references: Sequence[str]
    texts: Sequence[str]
    sources: Sequence[str] = ()
    tables: Sequence[str | None] | None = None

    def __len__(self) -> int:
        return len(self.references)

    def take(self, rows: Ints) -> Texts:
        """These rows, in this order."""
        tables = None if self.tables is None else [self.tables[i] for i in rows]
        return replace(
            self,
            references=[self.references[i] for i in rows],
            texts=[self.texts[i] for i in rows],
            sources=[self.sources[i] for i in rows] if self.sources else (),
            tables=tables,
        )


@dataclass(frozen=True, slots=True)
class TextMetric:
    """A number that says how good written texts are; see ``Metric`` for that of classes.

    Either ``of_all`` gives the number of a whole sample, or ``of_rows`` one a row [n] (NaN where a
    row has none), whose mean it is. ``rate`` says that a row's number is 0 or 1. ``undefined`` is
    the sentence for a user when ``compute`` gives ``None``.
    """

    name: str
    higher_is_better: bool
    low: float
    high: float
    of_all: Callable[[Texts], float | None] | None = None
    of_rows: Callable[[Texts], Floats] | None = None
    undefined: str = "there are no rows"
    rate: bool = False

    def compute(self, made: Texts) -> float | None:
        """The value, or ``None`` where it is undefined; NaN never escapes."""
        if not len(made):
            return None
        if self.of_rows is not None:
            rows = self.of_rows(made)
            # A row that has no number (a reference that does not run) is no row of this metric.
            kept = rows[np.isfinite(rows)]
            return float(kept.mean()) if len(kept) else None
        value = self.of_all(made) if self.of_all is not None else None
        return None if value is None or not math.isfinite(value) else float(value)

    def better(self, first: float, second: float) -> bool:
        """Whether ``first`` is strictly better than ``second``."""
        return first > second if self.higher_is_better else first < second

    @property
    def best(self) -> float:
        """The value of texts that are their references."""
        return self.high if self.higher_is_better else self.low


TEXT_METRICS: Registry[TextMetric] = Registry("text metric", "train.metric")


def add_text_metric(metric: TextMetric) -> TextMetric:
    """Register a metric of written texts under its name."""
    return TEXT_METRICS.add(metric.name, metric)
