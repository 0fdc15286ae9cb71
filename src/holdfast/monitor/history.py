"""The history that the detectors look at: snapshots and the facts of their run, with the numbers
that several of them read, each computed once and only when asked for."""

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
# An error of 4 % over a run is eighty of them.
RESAMPLES = 2000


@dataclass(frozen=True)
class History:
    """A history, oldest snapshot first, and what is known beside it. Of a run that went back it is
    that of the branch that is alive, so that its steps rise.

    Tables are [rows, snapshots], and the mean of a column is the loss of that snapshot. ``valid``
    are the validation losses after each snapshot's best temperature where the logits are at hand
    (``is_calibrated``), else the raw ones, which ``raw`` always are; ``probe`` are those of the
    train probe. ``best`` and ``raw_best`` are the snapshots of the smallest mean, ``window_start``
    the one so many looks ago that is compared with the last; ``best_step_kept`` is the step of the
    state that the run would keep now, where that is known.
    """

    snapshots: tuple[Snapshot, ...]
    run_facts: RunFacts = NOTHING_KNOWN
    best_step_kept: int | None = None

    @cached_property
    def first_non_finite(self) -> Snapshot | None:
        """The first snapshot with a loss that is not a number."""
        for one in self.snapshots:
            if not (np.isfinite(one.train_losses).all() and np.isfinite(one.valid_losses).all()):
                return one
        return None

    @property
    def comparable(self) -> bool:
        """Two snapshots or more, all of numbers."""
        return len(self.snapshots) > 1 and self.first_non_finite is None

    @property
    def has_validation(self) -> bool:
        """Comparable, with validation rows."""
        return self.comparable and self.snapshots[-1].valid_losses.size > 0

    @cached_property
    def steps(self) -> tuple[int, ...]:
        return tuple(snapshot.step for snapshot in self.snapshots)

    @property
    def last_step(self) -> int:
        return self.steps[-1]

    @property
    def window_start(self) -> int:
        return max(0, len(self.snapshots) - 1 - limits.WINDOW)

    @property
    def is_at_plan_end(self) -> bool:
        """Whether the run stands at the end of its plan; never where the plan is not known."""
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
        """The rise of the last state's loss after its best temperature above the best one, with
        its share of the error of a whole run; the raw rise where there are no logits."""
        if not self.is_calibrated:
            return self.raw_rise
        return self._rise(self.valid, limits.REFINED_ROSE)

    @cached_property
    def raw_rise(self) -> RiseState:
        """The same of the raw losses, which take most of the error."""
        return self._rise(self.raw, limits.RAW_ROSE)

    def _rise(self, table: Floats, alpha: float) -> RiseState:
        """What ``table`` [rows, snapshots] says of a rise of its last column above its best, at
        the error ``alpha`` over the whole run."""
        power, times = self.error_spending_times
        # One seed in every run and at every look: the boundaries of earlier looks must not move.
        seed = generator(0, "guard", "looks")
        return rise_at_evaluation(
            table, ErrorSpending(times, alpha, power), seed=seed, resamples=RESAMPLES
        )

    @property
    def error_spending_times(self) -> tuple[float, Floats]:
        """How late the error is spent, and when each look was taken: by the steps of the plan as it
        stood then, else by the number of looks, else without an end in sight."""
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
        """Whether the raw validation loss has risen above its best by the test over this run's
        looks, still stands above it beyond chance and by more than the margin, and the train probe
        did not get worse meanwhile."""
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
        """Whether the test over this run's looks has raised its alarm for ``valid``, which still
        stands above its best, beyond chance and by more than a trifle, whatever training did."""
        alarm = self.rise.alarm_at is not None and self.above_best.low > 0
        return alarm and self.rise.value >= self.trifle

    @property
    def trifle(self) -> float:
        """A change of ``valid`` that nobody would see in its curve, or in three decimals."""
        level = float(self.valid.mean(axis=0)[self.best])
        return max(limits.TRIVIAL, limits.TRIVIAL_SHARE * level)

    @cached_property
    def has_risen(self) -> bool:
        """Whether validation got worse while training did not, by the raw loss or by that after
        the best temperature, there by more than a trifle."""
        refined = self.has_validation and self.is_calibrated and self.is_rising
        return self.raw_has_risen or (refined and not self.probe_since_best.low > 0)

    @cached_property
    def error_rise(self) -> RiseState | None:
        """The rise of the share of wrong answers above its lowest, corrected for that choice."""
        if self.valid_hits is None:
            return None
        return self._rise(1.0 - self.valid_hits, limits.REFINED_ROSE)

    @cached_property
    def answers_worse(self) -> bool:
        """Of a run whose loss rose: whether the answers are worse than at their best, by the lower
        limit that holds for every choice of the best. Without logits the loss is the answer."""
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
        """How much of what the best state had gained over always giving the class frequencies the
        last state has lost again, by the raw loss; ``None`` where it had gained nothing."""
        means = self.raw.mean(axis=0)
        best = float(means[self.raw_best])
        if self.chance is None or not self.chance > best:
            return None
        return float(means[-1] - best) / (self.chance - best)

    @cached_property
    def accuracy_gap(self) -> AccuracyGap | None:
        """The gap of right answers at the last look."""
        return accuracy_gap_of(self.snapshots[-1]) if self.snapshots else None

    @cached_property
    def completions(self) -> AccuracyGap | None:
        """The gap of answers that are completed to the word, where it lies above 0 beyond chance:
        the model recites what it read, and it is not that all answers go on alike."""
        gap = completions_gap(self.snapshots[-1]) if self.snapshots else None
        return gap if gap is not None and gap.low > 0 else None

    @cached_property
    def far_behind(self) -> bool:
        """Whether unseen rows are more than 10 points behind the train probe: with a probability of
        95 %; of 80 % where the raw validation loss stands above its best by more than the margin;
        more likely than not where it does by half of it too. A person reads both off the curves."""
        gap = self.accuracy_gap
        # Of a few rows that are all correct a large gap may still be likely; nobody sees one.
        if gap is None or not self.has_validation or gap.value <= 0:
            return False
        rise, best = self.raw_above_best.value, float(self.raw.mean(axis=0)[self.raw_best])
        if rise <= self.raw_margin:
            return gap.large
        return gap.beyond >= (0.5 if rise > limits.BIG_RISE * best else limits.LIKELY)

    @cached_property
    def kept_place(self) -> int | None:
        """The place of the state that is kept; ``None`` where it is not known or not a look."""
        return self.steps.index(self.best_step_kept) if self.best_step_kept in self.steps else None

    @cached_property
    def most_frequent_share(self) -> float | None:
        """The share of the commonest class of the validation rows, where it is known."""
        if self.valid_hits is None or self.labels is None or not len(self.labels):
            return None
        return float(np.bincount(self.labels).max()) / len(self.labels)

    def is_useless(self, place: int) -> bool:
        """Whether a look is no better than always giving the commonest class; where answers are not
        right or wrong, than the first look."""
        if not self.has_validation:
            return False
        if self.most_frequent_share is not None and self.valid_hits is not None:
            return bool(self.valid_hits[:, place].mean() <= self.most_frequent_share)
        means = self.raw.mean(axis=0)
        return self.valid_hits is None and place > 0 and bool(means[place] >= means[0])

    @property
    def at_floor(self) -> bool:
        """Whether the training rows have next to nothing left to teach."""
        return bool(self.snapshots) and is_at_floor(self.snapshots[-1])

    @cached_property
    def above_best(self) -> Difference:
        return self.gap(self.valid, -1, self.best)

    @cached_property
    def recent_change(self) -> Difference:
        return self.gap(self.valid, -1, self.window_start)

    @cached_property
    def gain_over_first(self) -> Difference:
        """The best state against the first."""
        return self.gap(self.valid, self.best, 0)

    @cached_property
    def probe_since_best(self) -> Difference:
        return self.gap(self.probe, -1, self.best)

    def gap(
        self, table: Floats, first: int, second: int, level: float = limits.INTERVAL_LEVEL
    ) -> Difference:
        """One look less another, row by row."""
        return paired_t(table[:, first], table[:, second], level)

    @cached_property
    def valid_hits(self) -> Bools | None:
        """Which validation rows were right [n, snapshots], where the task says so."""
        return stack_correct([snapshot.valid_correct for snapshot in self.snapshots])

    @cached_property
    def probe_hits(self) -> Bools | None:
        return stack_correct([snapshot.train_correct for snapshot in self.snapshots])

    @cached_property
    def labels(self) -> Ints | None:
        """The classes of the validation rows, where the logits tell them."""
        # A head that begins with zeros gives every class the same loss: the first look tells none.
        return validation_labels(self.snapshots[-1]) if self.has_validation else None

    @property
    def predictions(self) -> Ints | None:
        """The likeliest class of each validation row at the last look, where there are classes."""
        logits = self.snapshots[-1].valid_logits
        return None if self.labels is None or logits is None else logits.argmax(axis=1)

    @cached_property
    def chance(self) -> float | None:
        """The loss of always giving the class frequencies of the validation rows; without labels
        that of an even guess; ``None`` where there are no classes."""
        if self.labels is not None and len(self.labels):
            shares = np.bincount(self.labels) / len(self.labels)
            shares = shares[shares > 0]
            # Of one class alone the sum is −0.
            return float(-(shares * np.log(shares)).sum()) + 0.0
        classes = self.run_facts.classes
        return math.log(classes) if classes and self.probe_hits is not None else None

    @property
    def peak_rate(self) -> float:
        """The peak learning rate of the run, or what an action has raised it to since; NaN where
        nobody knows the peak."""
        return math.nan if self.run_facts.peak_rate is None else self.highest_rate

    @cached_property
    def highest_rate(self) -> float:
        """The highest learning rate that is known, by the plan or at an evaluation: the peak, or
        something below it; NaN where there is none."""
        rates = [s.learning_rate for s in self.snapshots if math.isfinite(s.learning_rate)]
        return max((*rates, self.run_facts.peak_rate or 0.0)) or math.nan

    @property
    def loss_name(self) -> str:
        return f"the {'calibrated ' if self.is_calibrated else ''}validation loss"


def _margin(table: Floats, place: int) -> float:
    return max(limits.MARGIN, limits.MARGIN_SHARE * float(table.mean(axis=0)[place]))
