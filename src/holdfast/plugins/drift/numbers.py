"""Have facts of rows and of their answers moved: how sure the model is, lengths, repetition, a
predicted number? Each is held against its ranks among the reference, in both directions, at the
mean and in the furthest tenth: the rank tests of distributions, as bets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from holdfast.core.records import Floats
from holdfast.plugins.drift.payoffs import SURE, in_tail, rank_bound, ranks, shared, tail_bound
from holdfast.stats.streams.e_detector import Detector

WAYS = ("higher", "much higher", "lower", "much lower")
FEWEST = 20


@dataclass(frozen=True, slots=True, eq=False)
class NumberWatch:
    """Bets on the facts ``held``, by name, the sorted values of the reference [m] of each."""

    held: Mapping[str, Floats]
    detector: Detector

    @classmethod
    def of_reference(cls, numbers: Mapping[str, Floats]) -> NumberWatch | None:
        """Of the facts that at least ``FEWEST`` reference rows have, not all the same; ``None``
        where there is none."""
        known = {name: np.sort(x[np.isfinite(x)]) for name, x in sorted(numbers.items())}
        held = {name: x for name, x in known.items() if len(x) >= FEWEST and x[0] < x[-1]}
        if not held:
            return None
        sure = shared(SURE, len(WAYS) * len(held))
        bounds = [
            bound(len(x), sure)
            for x in held.values()
            for bound in (rank_bound, tail_bound, rank_bound, tail_bound)
        ]
        return cls(held, Detector.of_bounds(np.array(bounds)))

    def add(
        self, numbers: Mapping[str, Floats], n: int, limit: float
    ) -> tuple[NumberWatch, int | None]:
        """After ``n`` more rows, up to the first at which the evidence reaches ``limit``; a fact
        that they do not bring, or bring as NaN, is not bet on."""
        found = np.full((n, len(WAYS) * len(self.held)), np.nan)
        for k, (name, among) in enumerate(self.held.items()):
            if name not in numbers:
                continue
            values = np.asarray(numbers[name], dtype=np.float64)
            at = np.flatnonzero(np.isfinite(values))
            up, down = values[at], -values[at]
            columns = (
                ranks(up, among),
                in_tail(up, among),
                ranks(down, -among[::-1]),
                in_tail(down, -among[::-1]),
            )
            found[at, len(WAYS) * k : len(WAYS) * (k + 1)] = np.stack(columns, axis=1)
        detector, at_row = self.detector.add(found, limit)
        return replace(self, detector=detector), at_row

    @property
    def by(self) -> str:
        """The fact that speaks loudest for a change, and how: ``confidence lower``."""
        k = self.detector.by
        return f"{list(self.held)[k // len(WAYS)]} {WAYS[k % len(WAYS)]}"

    def to_json(self) -> dict[str, Any]:
        return self.detector.to_json()

    def restored(self, said: Mapping[str, Any]) -> NumberWatch:
        """This watch, of the same reference, with what ``to_json`` wrote down."""
        return replace(self, detector=Detector.of(said))
