"""How far what was learned holds on rows that were not learned: the gap, the rise and the harm.

These are the facts that a person reads off both curves and both accuracies. ``overfit``,
``memorizing`` and ``miscalibrated`` are three answers to them, so they are worked out once, here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from holdfast.core.records import Evidence, Floats, Snapshot
from holdfast.monitor import limits
from holdfast.monitor.symptom import item
from holdfast.stats.rate_gap import gap_probability, rate_gap

Harm = Literal["answers", "certainty", "both"]


@dataclass(frozen=True, slots=True)
class Gap:
    """The share of right answers of the train probe less that of validation, at one look. ``low``
    and ``high`` are Newcombe's 95 % interval, which is shown: the rows are different ones, so
    nothing is paired. ``beyond`` is the probability that the gap is above ``limits.GAP``."""

    train: float
    valid: float
    low: float
    high: float
    beyond: float
    step: int

    @property
    def value(self) -> float:
        """Training less validation, from −1 to 1."""
        return self.train - self.valid

    @property
    def large(self) -> bool:
        """Above the line as good as surely."""
        return self.beyond >= limits.USUAL

    @property
    def small(self) -> bool:
        """Below the line as good as surely."""
        return self.beyond <= 1 - limits.USUAL

    def words(self) -> str:
        """98 % of the training rows right, 75 % of validation (a gap of 23 points, 15 to 31)."""
        low, high = round(100 * self.low), round(100 * self.high)
        return (
            f"{self.train:.0%} of the training rows right, {self.valid:.0%} of validation "
            f"(a gap of {round(100 * self.value)} points, {low} to {high})"
        )

    def evidence(self, name: str = "accuracy_train_probe_above_valid") -> Evidence:
        """The gap with its interval as evidence."""
        return item(name, self.value, self.low, self.high, self.step)


def gap_of(snapshot: Snapshot) -> Gap | None:
    """The gap at one look; ``None`` where answers are not right or wrong, or rows are missing."""
    train, valid = snapshot.train_correct, snapshot.valid_correct
    if train is None or valid is None or not len(train) or not len(valid):
        return None
    counts = int(train.sum()), len(train), int(valid.sum()), len(valid)
    low, high = rate_gap(*counts, limits.USUAL)
    beyond = gap_probability(*counts, limits.GAP)
    return Gap(float(train.mean()), float(valid.mean()), low, high, beyond, snapshot.step)


def at_floor(snapshot: Snapshot) -> bool:
    """Whether there is next to nothing left to learn from the training rows: 95 % of the train
    probe is right, or, where answers are not right or wrong, is given 90 % or more."""
    if snapshot.train_correct is not None and len(snapshot.train_correct):
        return bool(snapshot.train_correct.mean() >= limits.FLOOR_SHARE)
    losses = snapshot.train_losses
    return bool(len(losses)) and bool((losses < limits.FITTED).mean() >= limits.FLOOR_SHARE)


def last_gain(history: Sequence[Snapshot], losses: Floats) -> int:
    """The look at which the answers last reached a new best: the lowest mean of ``losses``
    [rows, looks], or the largest share of right answers, the first of equals."""
    best = int(losses.mean(axis=0).argmin())
    hits = [snapshot.valid_correct for snapshot in history]
    if any(one is None or not len(one) for one in hits):
        return best
    return max(best, int(np.argmax([float(np.mean(one)) for one in hits if one is not None])))
