"""What a look says, row by row: its validation losses, with confidence taken out where that is
possible, its labels, and how far its right answers fall behind on rows that were not learned.

The gap of right answers is what a person reads off both accuracies. ``overfit``, ``memorizing`` and
``miscalibrated`` are three answers to it and to the rise, so both are worked out once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Evidence, Floats, Ints, Snapshot
from holdfast.monitor import limits
from holdfast.monitor.symptom import evidence_item
from holdfast.stats.intervals import fisher_above, gap_probability, rate_gap
from holdfast.stats.paired_tests import loss_rows, newcombe, paired_t, ratio_rows, welch
from holdfast.stats.temperature import best_temperature, losses_at, recover_labels
from holdfast.stats.two_samples import holm

LEVEL = 0.05
Bools = npt.NDArray[np.bool_]


def validation_losses(history: Sequence[Snapshot]) -> Floats:
    """Per-row validation losses [n, snapshots], after each snapshot's best temperature where all
    of them kept their logits, else raw."""
    if any(snapshot.valid_logits is None for snapshot in history):
        return raw_losses(history)
    columns = []
    for snapshot in history:
        logits = np.asarray(snapshot.valid_logits)
        labels = recover_labels(logits, snapshot.valid_losses)
        # The snapshot's own where it has one, so that nothing is fitted twice at every look.
        temperature = snapshot.temperature
        if not np.isfinite(temperature) or temperature <= 0:
            temperature = best_temperature(logits, labels)[0]
        columns.append(losses_at(logits, labels, temperature))
    return np.stack(columns, axis=1)


def raw_losses(history: Sequence[Snapshot]) -> Floats:
    """Per-row validation losses [n, snapshots], whose mean is the loss of each snapshot."""
    return np.stack([loss_rows(one.valid_losses, one.valid_tokens) for one in history], axis=1)


def general_loss_rows(snapshot: Snapshot) -> Floats | None:
    """The rows [n] of the loss on the general probe, where there is one."""
    losses = snapshot.general_losses
    return None if losses is None else loss_rows(losses, snapshot.general_tokens)


def validation_labels(snapshot: Snapshot) -> Ints | None:
    """The class of each validation row [n], told by its loss and its logits; ``None`` without."""
    if snapshot.valid_logits is None or np.ndim(snapshot.valid_logits) != 2:
        return None
    return recover_labels(np.asarray(snapshot.valid_logits), snapshot.valid_losses)


def stack_correct(columns: Sequence[Bools | None]) -> Bools | None:
    """Which rows were right at each look [n, snapshots]; ``None`` unless every look tells."""
    known = [column for column in columns if column is not None]
    return np.stack(known, axis=1) if len(known) == len(columns) and known else None


def beats_chance(predictions: Ints, losses: Floats, labels: Ints) -> bool:
    """Whether the classes ``predictions`` [n], which cost ``losses`` [n], are better, beyond
    chance, than knowing nothing but how often each class occurs among ``labels`` [n]: by a paired t
    interval of the losses against −log(share of the row's class), by Newcombe's interval of the
    right answers against always giving the commonest class, or because they ``follow_labels``."""
    shares = np.bincount(labels) / len(labels)
    lower_loss = paired_t(losses, -np.log(shares[labels])).high < 0
    more_correct = newcombe(predictions == labels, labels == int(shares.argmax()))[0] > 0
    return lower_loss or more_correct or follow_labels(predictions, labels)


def follow_labels(predictions: Ints, labels: Ints) -> bool:
    """Whether some class is answered significantly more often for its own rows than for others
    (Fisher's exact test a class, Holm, 5 %). It is so of a model that was trained on balanced
    classes and is asked where one is rare: by its loss, and by how many answers are right, always
    giving the common class is better."""
    p_values = []
    for label in np.unique(labels):
        is_own_class = labels == label
        is_predicted = predictions == label
        own_hits = int(is_predicted[is_own_class].sum())
        other_hits = int(is_predicted.sum()) - own_hits
        p_values.append(
            fisher_above(own_hits, int(is_own_class.sum()), other_hits, int((~is_own_class).sum()))
        )
    return bool(p_values) and float(holm(np.array(p_values)).min()) < LEVEL


Harm = Literal["answers", "certainty", "both"]
Unit = Literal["rows", "tokens", "completions"]
UNIT_NAMES = {
    "rows": "accuracy",
    "tokens": "token accuracy",
    "completions": "the share of answers that the kept model completes verbatim",
}
VERBATIM_EVIDENCE = "completed_verbatim_train_above_valid"


@dataclass(frozen=True, slots=True)
class AccuracyGap:
    """The share of right answers of the train probe less that of validation, at one look; of
    models that write, the share of right tokens, or that of answers which the kept model completes
    to the word (``of``). ``low`` and ``high`` are its 95 %
    interval: the rows are different ones, so nothing is paired. ``beyond`` is the probability that
    the gap is above ``limits.GAP``."""

    train: float
    valid: float
    low: float
    high: float
    beyond: float
    step: int
    of: Unit = "rows"

    @property
    def value(self) -> float:
        """Training less validation, from −1 to 1."""
        return self.train - self.valid

    @property
    def large(self) -> bool:
        """Above the line as good as surely."""
        return self.beyond >= limits.INTERVAL_LEVEL

    @property
    def small(self) -> bool:
        """Below the line as good as surely."""
        return self.beyond <= 1 - limits.INTERVAL_LEVEL

    def words(self) -> str:
        """accuracy is 98 % on training rows and 75 % on validation rows (gap 23 points, 95 % CI 15
        to 31)."""
        low, high = round(100 * self.low), round(100 * self.high)
        return (
            f"{self.name} is {self.train:.0%} on training rows and {self.valid:.0%} on validation "
            f"rows (gap {round(100 * self.value)} points, {limits.INTERVAL_LEVEL:.0%} CI "
            f"{low} to {high})"
        )

    @property
    def name(self) -> str:
        """What the two shares are called."""
        return UNIT_NAMES[self.of]

    def evidence(self, name: str) -> Evidence:
        """The gap with its interval as evidence."""
        return evidence_item(name, self.value, self.low, self.high, self.step)


def accuracy_gap_of(snapshot: Snapshot) -> AccuracyGap | None:
    """The gap at one look: Newcombe's interval of two rates, and a flat prior on both
    (``stats/intervals.py``); ``None`` where answers are not right or wrong, or rows are missing."""
    train, valid = snapshot.train_correct, snapshot.valid_correct
    if train is not None and valid is not None and len(train) and len(valid):
        counts = int(train.sum()), len(train), int(valid.sum()), len(valid)
        return _gap_of_counts(counts, float(train.mean()), float(valid.mean()), snapshot.step)
    # Of models that write rows are the units, since the tokens of one belong together (ratios of
    # sums over rows, Welch's interval).
    train_rows = correct_token_rows(snapshot.train_right, snapshot.train_tokens)
    valid_rows = correct_token_rows(snapshot.valid_right, snapshot.valid_tokens)
    if train_rows is None or valid_rows is None or min(len(train_rows), len(valid_rows)) < 2:
        return None
    difference = welch(train_rows, valid_rows, limits.INTERVAL_LEVEL)
    beyond = welch(train_rows - limits.GAP, valid_rows).above
    low, high = max(-1.0, difference.low), min(1.0, difference.high)
    shares = float(train_rows.mean()), float(valid_rows.mean())
    return AccuracyGap(*shares, low, high, beyond, snapshot.step, "tokens")


def completions_gap(snapshot: Snapshot) -> AccuracyGap | None:
    """Of answers that a causal language model completes to the word, training rows against
    validation rows; ``None`` where none was asked for on either side."""
    shares = [(snapshot.outputs or {}).get(split, {}) for split in ("train", "valid")]
    if not all(share.get("verbatim_n") for share in shares):
        return None
    (train, n_1), (valid, n_2) = ((one["verbatim"], int(one["verbatim_n"])) for one in shares)
    counts = round(train * n_1), n_1, round(valid * n_2), n_2
    return _gap_of_counts(counts, train, valid, snapshot.step, "completions")


def _gap_of_counts(
    counts: tuple[int, int, int, int], train: float, valid: float, step: int, of: Unit = "rows"
) -> AccuracyGap:
    low, high = rate_gap(*counts, limits.INTERVAL_LEVEL)
    beyond = gap_probability(*counts, limits.GAP)
    return AccuracyGap(train, valid, low, high, beyond, step, of)


def correct_token_rows(right: Floats | None, tokens: Ints | None) -> Floats | None:
    """The rows [n] of the share of right tokens; ``None`` where they are not known."""
    if right is None or tokens is None or not tokens.sum():
        return None
    return ratio_rows(right, tokens.astype(np.float64))


def is_at_floor(snapshot: Snapshot) -> bool:
    """Whether there is next to nothing left to learn from the training rows: 95 % of the train
    probe (of models that write, of its tokens) is right, or, where answers are not right or wrong,
    is given 90 % or more."""
    if snapshot.train_correct is not None and len(snapshot.train_correct):
        return bool(snapshot.train_correct.mean() >= limits.FLOOR_SHARE)
    if (right := correct_token_rows(snapshot.train_right, snapshot.train_tokens)) is not None:
        return bool(right.mean() >= limits.FLOOR_SHARE)
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
