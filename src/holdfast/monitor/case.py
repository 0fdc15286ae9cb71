"""The case that the detectors look at: a history and its circumstances, with the numbers that
several of them read, each computed once and only when asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from holdfast.core.circumstances import Circumstances
from holdfast.core.records import Floats, Ints, Snapshot
from holdfast.core.seeds import generator
from holdfast.monitor import limits
from holdfast.monitor.evidence import validation_labels, validation_losses
from holdfast.stats.looks import Look, look
from holdfast.stats.paired import Difference
from holdfast.stats.student import paired_t

RESAMPLES = 2000
NOTHING_KNOWN = Circumstances()
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """A history, oldest snapshot first, and what is known beside it.

    Tables are [rows, snapshots]. ``valid`` are the validation losses after each snapshot's best
    temperature where the logits are at hand (``refined``), else the raw ones, which ``raw`` always
    are; ``probe`` are those of the train probe. ``best`` and ``raw_best`` are the snapshots of the
    smallest mean, ``before`` the one so many looks ago that is compared with the last.
    """

    history: tuple[Snapshot, ...]
    circumstances: Circumstances = NOTHING_KNOWN

    @cached_property
    def broken(self) -> Snapshot | None:
        """The first snapshot with a loss that is not a number."""
        for snapshot in self.history:
            for losses in (snapshot.train_losses, snapshot.valid_losses):
                if not np.isfinite(losses).all():
                    return snapshot
        return None

    @property
    def comparable(self) -> bool:
        """Two snapshots or more, all of numbers."""
        return len(self.history) > 1 and self.broken is None

    @property
    def enough(self) -> bool:
        """Comparable, with validation rows."""
        return self.comparable and self.history[-1].valid_losses.size > 0

    @cached_property
    def steps(self) -> tuple[int, ...]:
        return tuple(snapshot.step for snapshot in self.history)

    @property
    def now(self) -> int:
        return self.steps[-1]

    @property
    def before(self) -> int:
        return max(0, len(self.history) - 1 - limits.WINDOW)

    @property
    def final(self) -> bool:
        """Whether the run stands at the end of its plan; never where the plan is not known."""
        planned = self.circumstances.planned_steps
        return planned is not None and self.now >= limits.END * planned

    @cached_property
    def _validation(self) -> tuple[Floats, bool]:
        return validation_losses(self.history)

    @property
    def valid(self) -> Floats:
        return self._validation[0]

    @property
    def refined(self) -> bool:
        return self._validation[1]

    @cached_property
    def raw(self) -> Floats:
        return np.stack([snapshot.valid_losses for snapshot in self.history], axis=1)

    @cached_property
    def probe(self) -> Floats:
        return np.stack([snapshot.train_losses for snapshot in self.history], axis=1)

    @cached_property
    def probe_means(self) -> Floats:
        table = self.probe
        return table.mean(axis=0) if len(table) else np.full(table.shape[1], np.nan)

    @cached_property
    def best(self) -> int:
        return int(np.argmin(self.valid.mean(axis=0)))

    @cached_property
    def raw_best(self) -> int:
        return int(np.argmin(self.raw.mean(axis=0)))

    @property
    def best_step(self) -> int:
        return self.steps[self.best]

    @cached_property
    def margin(self) -> float:
        """The difference of losses that is too small to matter."""
        best = float(self.valid.mean(axis=0)[self.best])
        return max(limits.MARGIN, limits.MARGIN_SHARE * best)

    @cached_property
    def rise(self) -> Look:
        """The rise of the last state above the best, with the error of a whole run spent."""
        return self._look(self.valid, limits.OVERFIT)

    @cached_property
    def raw_rise(self) -> Look:
        """The same of the raw losses, with their own share of the error."""
        return self._look(self.raw, limits.MISCALIBRATED)

    def _look(self, table: Floats, alpha: float) -> Look:
        looks, planned = table.shape[1], self.circumstances.planned_looks
        seed = generator(0, "guard", "looks")
        if planned is not None:
            return look(table, max(planned, looks), seed=seed, alpha=alpha, resamples=RESAMPLES)
        # Without a plan the error is spent so that it never runs out: half of it by the third look.
        times = np.arange(1, looks + 1) / (np.arange(1, looks + 1) + 3)
        return look(table, looks, seed=seed, alpha=alpha, times=times, power=1, resamples=RESAMPLES)

    @cached_property
    def above_best(self) -> Difference:
        return self.gap(self.valid, -1, self.best)

    @cached_property
    def recent(self) -> Difference:
        return self.gap(self.valid, -1, self.before)

    @cached_property
    def learned(self) -> Difference:
        """The best state against the first."""
        return self.gap(self.valid, self.best, 0)

    @cached_property
    def probe_since_best(self) -> Difference:
        return self.gap(self.probe, -1, self.best)

    def gap(
        self, table: Floats, first: int, second: int, level: float = limits.USUAL
    ) -> Difference:
        """One look less another, row by row."""
        return paired_t(table[:, first], table[:, second], level)

    @cached_property
    def valid_hits(self) -> Bools | None:
        """Which validation rows were right [n, snapshots], where the task says so."""
        return _stacked([snapshot.valid_correct for snapshot in self.history])

    @cached_property
    def probe_hits(self) -> Bools | None:
        return _stacked([snapshot.train_correct for snapshot in self.history])

    @cached_property
    def labels(self) -> Ints | None:
        """The classes of the validation rows, where the logits tell them."""
        return validation_labels(self.history[0]) if self.enough else None

    @cached_property
    def chance(self) -> float | None:
        """The loss of always giving the class frequencies of the validation rows; without labels
        that of an even guess; ``None`` where there are no classes."""
        if self.labels is not None and len(self.labels):
            shares = np.bincount(self.labels) / len(self.labels)
            shares = shares[shares > 0]
            return float(-(shares * np.log(shares)).sum())
        classes = self.circumstances.classes
        return math.log(classes) if classes and self.probe_hits is not None else None

    @cached_property
    def peak_rate(self) -> float:
        """The highest learning rate seen; NaN where none was."""
        rates = [s.learning_rate for s in self.history if math.isfinite(s.learning_rate)]
        return max(rates, default=math.nan) or math.nan

    @property
    def loss_name(self) -> str:
        return "the validation loss" + (" after its best temperature" if self.refined else "")


def _stacked(columns: list[Bools | None]) -> Bools | None:
    known = [column for column in columns if column is not None]
    return np.stack(known, axis=1) if len(known) == len(columns) and known else None
