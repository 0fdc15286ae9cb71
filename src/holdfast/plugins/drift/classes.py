"""Has the mix of answers moved? For each class two bets: that it is answered more often than the
reference leaves plausible, and that it is answered less often (the multinomial, class by class)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.plugins.drift.payoffs import SURE, shared
from holdfast.stats.streams.e_detector import Detector, share_above

# A bound of exactly 0 or 1 leaves nothing to bet on.
LEAST = 1e-6
FEWEST = 20


@dataclass(frozen=True, slots=True, eq=False)
class ClassWatch:
    """Bets on the mix of the answers among ``names``, held against ``counts`` [classes]."""

    names: tuple[str, ...]
    counts: Ints
    detector: Detector

    @classmethod
    def of_reference(cls, answers: Ints, names: Sequence[str]) -> ClassWatch | None:
        """Of the classes that reference rows were answered [m]; ``None`` below ``FEWEST`` rows or
        two classes."""
        given = answers[answers >= 0]
        if len(given) < FEWEST or len(names) < 2:
            return None
        counts = np.bincount(given, minlength=len(names))
        sure, m = shared(SURE, 2 * len(names)), int(counts.sum())
        more = [share_above(int(c), m, sure) for c in counts]
        less = [share_above(m - int(c), m, sure) for c in counts]
        bounds = np.clip(np.array([*more, *less]), LEAST, 1 - LEAST)
        return cls(tuple(names), counts, Detector.of_bounds(bounds))

    def add(self, answers: Ints, limit: float) -> tuple[ClassWatch, int | None]:
        """After more answers [n], up to the first at which the evidence reaches ``limit``; a row
        without an answer (−1) is not bet on."""
        is_class: Floats = (answers[:, None] == np.arange(len(self.names))).astype(np.float64)
        values = np.concatenate([is_class, 1 - is_class], axis=1)
        values[answers < 0] = np.nan
        detector, at = self.detector.add(values, limit)
        return replace(self, detector=detector), at

    @property
    def by(self) -> str:
        """The class that speaks loudest for a change, and how: ``refund more often``."""
        k = self.detector.by
        return (
            f"{self.names[k % len(self.names)]} {'more' if k < len(self.names) else 'less'} often"
        )

    def to_json(self) -> dict[str, Any]:
        return self.detector.to_json()

    def restored(self, said: Mapping[str, Any]) -> ClassWatch:
        """This watch, of the same reference, with what ``to_json`` wrote down."""
        return replace(self, detector=Detector.of(said))
