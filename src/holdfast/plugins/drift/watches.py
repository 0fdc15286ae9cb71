"""Sequential tests of predicted classes and monitored statistics.

Each test is a bet: a row pays a value in [0, 1], and the mean payoff has a bound where nothing has
changed. The reference is finite. A test of "the same distribution" on an endless stream would
reject in the end however alike the two are: the stream's mean becomes known ever better, the
reference's does not. So the null hypothesis is not "the same distribution" but

    the stream's mean is at most what ``m`` reference rows leave plausible for their distribution,

an upper confidence limit at ``CONFIDENCE_LEVEL``. A difference within this limit cannot be
distinguished from the sampling error of the reference, however long the stream is.

*Classes*: have the shares of the predicted classes changed? Two tests for each class: it is
predicted more often than the reference leaves plausible, or less often (the multinomial, class by
class). *Numbers*: confidence, lengths, repetition, a predicted number. Each is ranked among the
reference values, in both directions, at the mean and in the extreme tenth: rank tests of
distributions in betting form.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.plugins.drift.rows import DriftRows
from holdfast.stats.streams.means import Detector, mean_above, share_above

# Of one test, one-sided: 2.5 standard errors. A less typical reference raises alarms on clean
# traffic; for its least typical direction that is one reference in 160.
CONFIDENCE_LEVEL = 0.99379
# The standard deviation of a uniform value in [0, 1].
UNIFORM_SD = 1 / math.sqrt(12)
# The extreme tenth of the rows.
TAIL_SHARE = 0.1


def ranks(values: Floats, reference: Floats) -> Floats:
    """The share of the sorted ``reference`` [m] below each of ``values`` [n]; ties count half. It
    is uniform where both have the same distribution; its mean is the area under the ROC curve."""
    low = np.searchsorted(reference, values, side="left")
    high = np.searchsorted(reference, values, side="right")
    return np.asarray((low + high) / (2 * len(reference)))


def tail_size(m: int) -> int:
    """The number of rows in the extreme tenth of ``m`` rows: at least one."""
    return max(1, round(TAIL_SHARE * m))


def in_tail(values: Floats, reference: Floats) -> Floats:
    """1 for values above all but the extreme tenth of the sorted ``reference``, else 0."""
    edge = reference[len(reference) - tail_size(len(reference))]
    return np.asarray(values > edge, dtype=np.float64)


def rank_bound(m: int, confidence: float = CONFIDENCE_LEVEL) -> float:
    """The largest plausible mean of ``ranks`` for ``m`` reference rows of the same distribution."""
    return min(0.5 + mean_above(m, UNIFORM_SD, confidence), 0.99)


def tail_bound(m: int, confidence: float = CONFIDENCE_LEVEL) -> float:
    """The largest plausible mean of ``in_tail``. For rows of the same distribution, the share above
    the j-th largest of ``m`` is Beta(j, m − j + 1)."""
    return min(share_above(tail_size(m) - 1, m, confidence), 0.99)


def bonferroni_confidence(confidence: float, n_tests: int) -> float:
    """The confidence level of each of ``n_tests`` tests that keeps the overall error level
    (Bonferroni)."""
    return 1 - (1 - confidence) / max(1, n_tests)


# At a bound of exactly 0 or 1 no bet is possible.
MIN_BOUND = 1e-6
MIN_ROWS = 20
DIRECTIONS = ("higher", "much higher", "lower", "much lower")


@dataclass(frozen=True, slots=True, eq=False)
class ColumnWatch(ABC):
    """A ``detector`` with one column for each of the ``tests``, which are named in words."""

    detector: Detector
    tests: tuple[str, ...]

    @abstractmethod
    def payoffs(self, rows: DriftRows) -> Floats:
        """The payoff of each test for each row [n, tests], in [0, 1]; NaN where the value is
        unknown."""

    def add(self, rows: DriftRows, limit: float) -> tuple[Self, int | None]:
        """The watch after more rows, up to the first row at which the evidence reaches ``limit``. A
        row without known values is not tested, but counts."""
        detector, at = self.detector.add(self.payoffs(rows), limit)
        return replace(self, detector=detector), at

    @property
    def strongest_test(self) -> str:
        """The test with the most evidence of a change: ``refund more often``, ``words lower``."""
        return self.tests[self.detector.by]

    def to_json(self) -> dict[str, Any]:
        return self.detector.to_json()

    def with_saved_state(self, saved: Mapping[str, Any]) -> Self:
        """This watch, with the same reference, in the state that ``to_json`` stored. Raises
        ``ValueError`` for the state of another reference."""
        detector = Detector.from_json(saved)
        if detector.bounds.shape != self.detector.bounds.shape:
            raise ValueError("a state of another reference")
        return replace(self, detector=detector)


@dataclass(frozen=True, slots=True, eq=False)
class ClassWatch(ColumnWatch):
    """Sequential tests of the shares of the predicted classes."""

    @classmethod
    def of_reference(cls, answers: Ints, names: Sequence[str]) -> ClassWatch | None:
        """Build the tests from the predicted classes of the reference rows [m]; ``None`` below
        ``MIN_ROWS`` rows or two classes."""
        known = answers[answers >= 0]
        if len(known) < MIN_ROWS or len(names) < 2:
            return None
        counts, m = np.bincount(known, minlength=len(names)), len(known)
        confidence = bonferroni_confidence(CONFIDENCE_LEVEL, 2 * len(names))
        shares = [share_above(int(c), m, confidence) for c in (*counts, *(m - counts))]
        bets = [f"{name} {way} often" for way in ("more", "less") for name in names]
        return cls(Detector.of_bounds(np.clip(shares, MIN_BOUND, 1 - MIN_BOUND)), tuple(bets))

    def payoffs(self, rows: DriftRows) -> Floats:
        if rows.answers is None:
            return np.full((len(rows), len(self.tests)), np.nan)
        is_class = rows.answers[:, None] == np.arange(len(self.tests) // 2)
        values = np.concatenate([is_class, ~is_class], axis=1).astype(np.float64)
        values[rows.answers < 0] = np.nan
        return values


@dataclass(frozen=True, slots=True, eq=False)
class NumberWatch(ColumnWatch):
    """Sequential tests of the monitored statistics; ``reference_values`` holds the sorted values of
    the reference [m] by name."""

    reference_values: Mapping[str, Floats]

    @classmethod
    def of_reference(cls, numbers: Mapping[str, Floats]) -> NumberWatch | None:
        """Build the tests for the statistics that at least ``MIN_ROWS`` reference rows have with
        more than one value; ``None`` where no statistic qualifies."""
        known = {name: np.sort(x[np.isfinite(x)]) for name, x in sorted(numbers.items())}
        reference_values = {
            name: x for name, x in known.items() if len(x) >= MIN_ROWS and x[0] < x[-1]
        }
        if not reference_values:
            return None
        confidence = bonferroni_confidence(
            CONFIDENCE_LEVEL, len(DIRECTIONS) * len(reference_values)
        )
        limits = [
            [rank_bound(len(x), confidence), tail_bound(len(x), confidence)] * 2
            for x in reference_values.values()
        ]
        bets = tuple(f"{name} {way}" for name in reference_values for way in DIRECTIONS)
        return cls(Detector.of_bounds(np.concatenate(limits)), bets, reference_values)

    def payoffs(self, rows: DriftRows) -> Floats:
        payoffs = np.full((len(rows), len(self.tests)), np.nan)
        for k, (name, reference) in enumerate(self.reference_values.items()):
            if name not in rows.numbers:
                continue
            values = np.asarray(rows.numbers[name], dtype=np.float64)
            at = np.flatnonzero(np.isfinite(values))
            up, down, below = values[at], -values[at], -reference[::-1]
            wins = (
                ranks(up, reference),
                in_tail(up, reference),
                ranks(down, below),
                in_tail(down, below),
            )
            payoffs[at, len(DIRECTIONS) * k : len(DIRECTIONS) * (k + 1)] = np.stack(wins, axis=1)
        return payoffs
