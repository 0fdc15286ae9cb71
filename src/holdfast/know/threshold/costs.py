"""What each kind of mistake costs, and the answer that costs least."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.stats.streams import betting_limits

SURE = 0.95


@dataclass(frozen=True, slots=True)
class CostMatrix:
    """``cost`` [classes, classes + 1] of giving each answer to a row of each class, in any unit;
    the last column is that of giving none, ∞ where that is not allowed."""

    names: tuple[str, ...]
    cost: Floats

    def choose(self, probabilities: Floats) -> Ints:
        """The answer [n] with the least expected cost (Chow 1970; Elkan 2001), −1 for none; of
        equal ones the more probable class, a class before none."""
        classes = len(self.names)
        expected = np.full((len(probabilities), classes + 1), math.inf)
        expected[:, :classes] = probabilities @ self.cost[:, :classes]
        if np.isfinite(self.cost[:, classes]).all():
            expected[:, classes] = probabilities @ self.cost[:, classes]
        likely = np.column_stack([probabilities, np.full(len(probabilities), -1.0)])
        least = expected.min(axis=1, keepdims=True)
        near = expected <= least + 1e-12 * np.maximum(1.0, np.abs(least))
        best = np.argmax(np.where(near, likely, -2.0), axis=1)
        return np.where(best == classes, -1, best)

    def paid(self, labels: Ints, answers: Ints) -> Floats:
        """What the answers [n] (−1 for none) cost on rows of these classes [n]."""
        return np.asarray(self.cost[labels, answers])


@dataclass(frozen=True, slots=True)
class Priced:
    """The mean cost of a row on the rows that it was chosen on, for the least costly answer and for
    always giving the most probable class; ``limit`` is above the true mean of the first in 95 % of
    draws, ``plain_limit`` likewise above that of the second. ``answered`` of ``n`` rows are
    answered."""

    mean: float
    limit: float
    plain: float
    plain_limit: float
    n: int
    answered: int


def priced(matrix: CostMatrix, labels: Ints, probabilities: Floats) -> Priced:
    """The rule of ``matrix`` on validation rows. It chooses nothing by them, and of it and of the
    plain answer one is taken: the limit is one-sided at 97.5 % (betting, ``betting_limits``)."""
    answers = matrix.choose(probabilities)
    paid = matrix.paid(labels, answers)
    plain = matrix.paid(labels, probabilities.argmax(axis=1))
    finite = matrix.cost[np.isfinite(matrix.cost)]
    low, high = float(finite.min()), float(finite.max())

    def limit(costs: Floats) -> float:
        if not len(costs) or high <= low:
            return high
        return float(betting_limits(costs, low, high, alpha=1 - SURE).high[-1])

    return Priced(
        float(paid.mean()) if len(paid) else math.nan,
        limit(paid),
        float(plain.mean()) if len(paid) else math.nan,
        limit(plain),
        len(paid),
        int((answers >= 0).sum()),
    )
