"""Answers and facts of rows, watched by bets that they have changed.

A bet is a value in [0, 1] that a row gives, and a bound on its mean where nothing has changed. A
reference is finite. Whoever holds a stream without end against it, row after row, tells the two
apart in the end however alike they are, since the stream's mean becomes known ever better and the
reference's does not. So what is tested is not "the same law" but

    the stream's mean is at most what ``m`` reference rows leave plausible for their own law,

an upper limit at the certainty ``CONFIDENCE_LEVEL``.
What lies within it cannot be told from chance in choosing the reference, however long one waits.

*Classes*: has the mix of answers moved? For each class two bets: that it is answered more often
than the reference leaves plausible, and that it is answered less often (the multinomial, class by
class). *Numbers*: how sure the model is, lengths, repetition, a predicted number. Each is held
against its ranks among the reference, in both directions, at the mean and in the furthest tenth:
the rank tests of distributions, as bets.
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

# Of one bet, one-sided: that of 2.5 standard errors. A reference less typical than that, one of 160
# for the direction in which it is least typical, gives alarms in clean traffic.
CONFIDENCE_LEVEL = 0.99379
# Of a uniform value.
UNIFORM_SD = 1 / math.sqrt(12)
# The tenth of the rows that is furthest out.
TAIL_SHARE = 0.1


def ranks(values: Floats, reference: Floats) -> Floats:
    """The share of the sorted ``reference`` [m] below each of ``values`` [n], ties counted half. It
    is uniform where both have the same distribution; its mean is the area under the ROC curve."""
    low = np.searchsorted(reference, values, side="left")
    high = np.searchsorted(reference, values, side="right")
    return np.asarray((low + high) / (2 * len(reference)))


def tail_size(m: int) -> int:
    """How many of ``m`` rows are the furthest tenth: at least one."""
    return max(1, round(TAIL_SHARE * m))


def in_tail(values: Floats, reference: Floats) -> Floats:
    """1 for values above all but the furthest tenth of the sorted ``reference``, else 0."""
    edge = reference[len(reference) - tail_size(len(reference))]
    return np.asarray(values > edge, dtype=np.float64)


def rank_bound(m: int, confidence: float = CONFIDENCE_LEVEL) -> float:
    """The largest plausible mean of ``ranks`` among ``m`` rows of the same law."""
    return min(0.5 + mean_above(m, UNIFORM_SD, confidence), 0.99)


def tail_bound(m: int, confidence: float = CONFIDENCE_LEVEL) -> float:
    """The largest plausible mean of ``in_tail``. Of rows of the same law the share above the j-th
    largest of ``m`` is Beta(j, m − j + 1)."""
    return min(share_above(tail_size(m) - 1, m, confidence), 0.99)


def bonferroni_confidence(confidence: float, n_tests: int) -> float:
    """The certainty of each of ``n_tests`` that keeps the chance of any error (Bonferroni)."""
    return 1 - (1 - confidence) / max(1, n_tests)


# A bound of exactly 0 or 1 leaves nothing to bet on.
MIN_BOUND = 1e-6
MIN_ROWS = 20
DIRECTIONS = ("higher", "much higher", "lower", "much lower")


@dataclass(frozen=True, slots=True, eq=False)
class ColumnWatch(ABC):
    """A ``detector`` with a column for each of the ``tests``, which say in words what they bet."""

    detector: Detector
    tests: tuple[str, ...]

    @abstractmethod
    def payoffs(self, rows: DriftRows) -> Floats:
        """What each bet wins by each row [n, bets], in [0, 1]; NaN where it is not bet on."""

    def add(self, rows: DriftRows, limit: float) -> tuple[Self, int | None]:
        """After more rows, up to the first at which the evidence reaches ``limit``; a row of which
        nothing is known is not bet on, but counts."""
        detector, at = self.detector.add(self.payoffs(rows), limit)
        return replace(self, detector=detector), at

    @property
    def strongest_test(self) -> str:
        """The bet that speaks loudest for a change: ``refund more often``, ``words lower``."""
        return self.tests[self.detector.by]

    def to_json(self) -> dict[str, Any]:
        return self.detector.to_json()

    def with_saved_state(self, saved: Mapping[str, Any]) -> Self:
        """This watch, of the same reference, with what ``to_json`` wrote down."""
        return replace(self, detector=Detector.from_json(saved))


@dataclass(frozen=True, slots=True, eq=False)
class ClassWatch(ColumnWatch):
    """Bets on the mix of the answers among the classes."""

    @classmethod
    def of_reference(cls, answers: Ints, names: Sequence[str]) -> ClassWatch | None:
        """Of the classes that reference rows were answered [m]; ``None`` below ``MIN_ROWS`` rows or
        two classes."""
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
        """Of the facts that at least ``MIN_ROWS`` reference rows have, not all the same; ``None``
        where there is none."""
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
