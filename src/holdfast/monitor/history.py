"""The history that the detectors read: snapshots and the facts of their run, with the numbers that
several detectors use. Each number is computed once and on demand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from holdfast.core.records import Floats, Ints, Snapshot
from holdfast.core.run_facts import RunFacts
from holdfast.core.seeds import generator
from holdfast.monitor import limits
from holdfast.monitor.evidence import (
    AccuracyGap,
    Bools,
    Harm,
    accuracy_gap_of,
    completions_gap,
    is_at_floor,
    raw_losses,
    stack_correct,
    validation_labels,
    validation_losses,
)
from holdfast.stats.paired_tests import Difference, loss_rows, paired_t
from holdfast.stats.sequential_rise import (
    POWER,
    ErrorSpending,
    RiseState,
    rise_at_evaluation,
    times_by_plan,
    times_without_plan,
)

NOTHING_KNOWN = RunFacts()
# The run-wide error of 4 % is 80 of these resamples.
RESAMPLES = 2000


@dataclass(frozen=True)
class History:
    """A history, oldest snapshot first, with the facts of its run. If the run went back to an
    earlier checkpoint, this is the history of the live branch, so its steps increase.

    Tables are [rows, snapshots], and the mean of a column is the loss of that snapshot. ``valid``
    holds the validation losses: calibrated by each snapshot's own temperature where the logits are
    known (``is_calibrated``), else raw. ``raw`` holds the raw ones in any case, ``probe`` the
    losses of the training sample. ``best`` and ``raw_best`` are the indices of the snapshots with
    the lowest mean. ``window_start`` is the index of the earlier evaluation that the last one is
    compared with. ``best_step_kept`` is the step of the checkpoint that the run would keep now,
    where it is known.
    """

    snapshots: tuple[Snapshot, ...]
    run_facts: RunFacts = NOTHING_KNOWN
    best_step_kept: int | None = None

    @cached_property
    def first_non_finite(self) -> Snapshot | None:
        """The first snapshot with a loss that is not finite."""
        for one in self.snapshots:
            if not (np.isfinite(one.train_losses).all() and np.isfinite(one.valid_losses).all()):
                return one
        return None

    @property
    def comparable(self) -> bool:
        """Whether there are two snapshots or more, all with finite losses."""
        return len(self.snapshots) > 1 and self.first_non_finite is None

    @property
    def has_validation(self) -> bool:
        """Whether the history is comparable and has validation rows."""
        return self.comparable and self.snapshots[-1].valid_losses.size > 0

    @cached_property
    def steps(self) -> tuple[int, ...]:
        return tuple(snapshot.step for snapshot in self.snapshots)

    @property
    def last_step(self) -> int:
        return self.steps[-1]

    @property
    def window_start(self) -> int:
        # Over more than the last half of a short run, any that learned something is still falling.
        changes = len(self.snapshots) - 1
        return max(0, changes - min(limits.WINDOW, max(1, changes // 2)))

    @property
    def is_at_plan_end(self) -> bool:
        """Whether the run is at the end of its plan; false where the plan is not known."""
        planned = self.run_facts.planned_steps
        return planned is not None and self.last_step >= limits.END * planned

    @cached_property
    def valid(self) -> Floats:
        return validation_losses(self.snapshots)

    @property
    def is_calibrated(self) -> bool:
        return all(one.valid_logits is not None for one in self.snapshots)

    @cached_property
    def raw(self) -> Floats:
        return raw_losses(self.snapshots)

    @cached_property
    def probe(self) -> Floats:
        columns = [loss_rows(one.train_losses, one.train_tokens) for one in self.snapshots]
        return np.stack(columns, axis=1)

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
        return _margin(self.valid, self.best)

    @cached_property
    def rise(self) -> RiseState:
        """The rise of the last calibrated loss above the best one, tested with its share of the
        error of a run; the raw rise where there are no logits."""
        if not self.is_calibrated:
            return self.raw_rise
        return self._rise(self.valid, limits.REFINED_ROSE)

    @cached_property
    def raw_rise(self) -> RiseState:
        """The rise of the raw loss, tested with most of the error of a run."""
        return self._rise(self.raw, limits.RAW_ROSE)

    def _rise(self, table: Floats, alpha: float) -> RiseState:
        """The rise of the last column of ``table`` [rows, snapshots] above its best one, at the
        error ``alpha`` over the run."""
        power, times = self.error_spending_times
        # The same seed in every run and evaluation: the boundaries of earlier evaluations must not
        # move.
        seed = generator(0, "guard", "looks")
        return rise_at_evaluation(
            table,
            ErrorSpending(times, alpha, power),
            seed=seed,
            groups=self.run_facts.valid_groups,
            resamples=RESAMPLES,
        )

    @property
    def error_spending_times(self) -> tuple[float, Floats]:
        """The power of the error-spending function, and the time of each evaluation: by the
        planned steps at that moment; else by the planned number of evaluations; else without a
        known end."""
        facts = self.run_facts
        plans = [snapshot.planned_steps or facts.planned_steps for snapshot in self.snapshots]
        if None not in plans:
            return POWER, times_by_plan(self.steps, [plan or 0 for plan in plans])
        evaluation_numbers = np.arange(1, len(plans) + 1)
        if facts.planned_looks is not None:
            return POWER, np.minimum(1.0, evaluation_numbers / facts.planned_looks)
        return 1.0, times_without_plan(len(evaluation_numbers))

    @cached_property
    def raw_margin(self) -> float:
        """The difference of raw losses that is too small to matter."""
        return _margin(self.raw, self.raw_best)

    @cached_property
    def raw_above_best(self) -> Difference:
        return self.gap(self.raw, -1, self.raw_best)

    @cached_property
    def raw_has_risen(self) -> bool:
        """Whether the raw validation loss has risen above its best by the test over all
        evaluations, is still significantly above it and by more than the margin, and the training
        loss did not get significantly worse meanwhile."""
        if (
            not self.has_validation
            or self.raw_rise.alarm_at is None
            or not self.raw_above_best.low > 0
        ):
            return False
        worse = self.probe.size and self.gap(self.probe, -1, self.raw_best).low > 0
        return self.raw_above_best.value > self.raw_margin and not worse

    @property
    def is_rising(self) -> bool:
        """Whether the test over all evaluations has raised its alarm for ``valid``, and the last
        loss is still significantly above the best one by more than a negligible amount; whatever
        the training loss did."""
        alarm = self.rise.alarm_at is not None and self.above_best.low > 0
        return alarm and self.rise.value >= self.trifle

    @property
    def trifle(self) -> float:
        """A change of ``valid`` that cannot be seen in its curve, or in three decimals."""
        level = float(self.valid.mean(axis=0)[self.best])
        return max(limits.TRIVIAL, limits.TRIVIAL_SHARE * level)

    @cached_property
    def has_risen(self) -> bool:
        """Whether validation got worse while training did not, by the raw loss, or by more than a
        negligible amount of the calibrated loss."""
        refined = self.has_validation and self.is_calibrated and self.is_rising
        return self.raw_has_risen or (refined and not self.probe_since_best.low > 0)

    @cached_property
    def error_rise(self) -> RiseState | None:
        """The rise of the error rate above its lowest, corrected for selecting the lowest."""
        if self.valid_hits is None:
            return None
        return self._rise(1.0 - self.valid_hits, limits.REFINED_ROSE)

    @cached_property
    def answers_worse(self) -> bool:
        """For a run whose loss rose: whether the predictions are worse than at their best, by the
        lower limit that holds for every choice of the best. Without logits the loss decides."""
        if not self.is_calibrated and self.valid_hits is None:
            return True
        wrong = self.error_rise
        return bool(self.is_calibrated and self.rise.low > 0) or bool(wrong and wrong.low > 0)

    @cached_property
    def harm(self) -> Harm | None:
        """What got worse on validation while training did not; ``None`` where nothing did."""
        if not self.has_risen:
            return None
        if not self.answers_worse:
            return "certainty"
        surer = self.is_calibrated and self.raw_rise.value - self.rise.value > self.raw_margin
        return "both" if surer else "answers"

    @cached_property
    def given_back(self) -> float | None:
        """The share of the best checkpoint's gain over the class frequencies that the last
        checkpoint has lost again, by the raw loss; ``None`` where nothing had been gained."""
        means = self.raw.mean(axis=0)
        best = float(means[self.raw_best])
        if self.chance is None or not self.chance > best:
            return None
        return float(means[-1] - best) / (self.chance - best)

    @cached_property
    def accuracy_gap(self) -> AccuracyGap | None:
        """The accuracy gap at the last evaluation."""
        return self.accuracy_gap_at(-1) if self.snapshots else None

    def accuracy_gap_at(self, place: int) -> AccuracyGap | None:
        """The accuracy gap at the evaluation with this index."""
        known = self.run_facts
        return accuracy_gap_of(self.snapshots[place], known.train_groups, known.valid_groups)

    @cached_property
    def completions(self) -> AccuracyGap | None:
        """The gap in outputs completed verbatim, where it is significantly above 0: the model
        recites training outputs, and not because all outputs are easy to continue."""
        gap = completions_gap(self.snapshots[-1]) if self.snapshots else None
        return gap if gap is not None and gap.low > 0 else None

    @cached_property
    def far_behind(self) -> bool:
        """Whether accuracy on unseen rows is more than 10 points below that on the training sample:
        with a probability of 95 %; of 80 % where the raw validation loss is above its best by more
        than the margin; above 50 % where it is above its best by more than half. A reader sees both
        in the curves."""
        gap = self.accuracy_gap
        # With few rows, all correct, a large gap may still be probable, but it is not visible.
        if gap is None or not self.has_validation or gap.value <= 0:
            return False
        rise, best = self.raw_above_best.value, float(self.raw.mean(axis=0)[self.raw_best])
        if rise <= self.raw_margin:
            return gap.large
        return gap.beyond >= (0.5 if rise > limits.BIG_RISE * best else limits.LIKELY)

    @cached_property
    def kept_place(self) -> int | None:
        """The index of the kept checkpoint; ``None`` where it is not known or not an evaluation."""
        return self.steps.index(self.best_step_kept) if self.best_step_kept in self.steps else None

    @cached_property
    def most_frequent_share(self) -> float | None:
        """The share of the most frequent class of the validation rows, where it is known."""
        if self.valid_hits is None or self.labels is None or not len(self.labels):
            return None
        return float(np.bincount(self.labels).max()) / len(self.labels)

    def is_useless(self, place: int) -> bool:
        """Whether an evaluation is no better than always predicting the most frequent class, in its
        accuracy and in its loss; where predictions are not correct or wrong, than the first
        evaluation."""
        if not self.has_validation:
            return False
        if self.most_frequent_share is not None and self.valid_hits is not None:
            accuracy = self.valid_hits[:, place].mean()
            return bool(accuracy <= self.most_frequent_share) and not self.informs(place)
        means = self.raw.mean(axis=0)
        return self.valid_hits is None and place > 0 and bool(means[place] >= means[0])

    def informs(self, place: int) -> bool:
        """Whether the loss of an evaluation is 10 % or more below that of the class frequencies.
        With skewed classes the accuracy may stay that of the most frequent class."""
        if self.labels is None or not self.chance:
            return False
        return bool(self.valid[:, place].mean() <= limits.INFORMED_SHARE * self.chance)

    @property
    def at_floor(self) -> bool:
        """Whether the training loss is near zero."""
        return bool(self.snapshots) and is_at_floor(self.snapshots[-1])

    @cached_property
    def above_best(self) -> Difference:
        return self.gap(self.valid, -1, self.best)

    @cached_property
    def recent_change(self) -> Difference:
        return self.gap(self.valid, -1, self.window_start)

    @cached_property
    def gain_over_first(self) -> Difference:
        """The best checkpoint minus the first."""
        return self.gap(self.valid, self.best, 0)

    @cached_property
    def probe_since_best(self) -> Difference:
        return self.gap(self.probe, -1, self.best)

    def gap(
        self, table: Floats, first: int, second: int, level: float = limits.INTERVAL_LEVEL
    ) -> Difference:
        """The paired difference of two evaluations, row by row or group by group. ``table`` is
        ``probe``, or one of the validation rows."""
        known = self.run_facts
        groups = known.train_groups if table is self.probe else known.valid_groups
        return paired_t(table[:, first], table[:, second], level, groups)

    @cached_property
    def valid_hits(self) -> Bools | None:
        """Which validation rows were correct [n, snapshots], where the task defines it."""
        return stack_correct([snapshot.valid_correct for snapshot in self.snapshots])

    @cached_property
    def probe_hits(self) -> Bools | None:
        return stack_correct([snapshot.train_correct for snapshot in self.snapshots])

    @cached_property
    def labels(self) -> Ints | None:
        """The classes of the validation rows, where the logits determine them."""
        # A head initialized with zeros gives every class the same loss: the first evaluation
        # determines nothing.
        return validation_labels(self.snapshots[-1]) if self.has_validation else None

    @property
    def predictions(self) -> Ints | None:
        """The predicted class of each validation row at the last evaluation, where there are
        classes."""
        logits = self.snapshots[-1].valid_logits
        return None if self.labels is None or logits is None else logits.argmax(axis=1)

    @cached_property
    def chance(self) -> float | None:
        """The loss of predicting the class frequencies of the validation rows; without labels that
        of a uniform prediction; ``None`` where there are no classes."""
        if self.labels is not None and len(self.labels):
            shares = np.bincount(self.labels) / len(self.labels)
            shares = shares[shares > 0]
            # With a single class the sum is −0.
            return float(-(shares * np.log(shares)).sum()) + 0.0
        classes = self.run_facts.classes
        return math.log(classes) if classes and self.probe_hits is not None else None

    @property
    def peak_rate(self) -> float:
        """The peak learning rate of the run, or the value an action has raised it to since; NaN
        where the peak is not known."""
        return math.nan if self.run_facts.peak_rate is None else self.highest_rate

    @cached_property
    def highest_rate(self) -> float:
        """The highest known learning rate, from the plan or an evaluation: the peak, or a value
        below it; NaN where no rate is known."""
        rates = [s.learning_rate for s in self.snapshots if math.isfinite(s.learning_rate)]
        return max((*rates, self.run_facts.peak_rate or 0.0)) or math.nan

    @property
    def loss_name(self) -> str:
        return f"the {'calibrated ' if self.is_calibrated else ''}validation loss"


def _margin(table: Floats, place: int) -> float:
    return limits.margin_of(float(table.mean(axis=0)[place]))
