"""Row-level quantities of an evaluation: validation losses (calibrated where possible), labels,
and the accuracy gap.

The accuracy gap (training sample − validation) is what a reader infers from both accuracies.
``overfit``, ``memorizing`` and ``miscalibrated`` all depend on it and on the rise of the loss, so
both are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Evidence, Floats, Ints, Snapshot
from holdfast.core.wording import percent_phrase, signed
from holdfast.monitor import limits
from holdfast.monitor.confirmation import METRIC_NAMES
from holdfast.monitor.symptom import evidence_item
from holdfast.stats.intervals import design_effect, fisher_above, gap_probability, rate_gap
from holdfast.stats.paired_tests import by_groups, loss_rows, newcombe, paired_t, ratio_rows, welch
from holdfast.stats.temperature import best_temperature, losses_at, recover_labels
from holdfast.stats.two_samples import holm

LEVEL = 0.05
Bools = npt.NDArray[np.bool_]


def validation_losses(history: Sequence[Snapshot]) -> Floats:
    """Per-row validation losses [n, snapshots]: after each snapshot's temperature scaling where all
    snapshots kept their logits, else raw."""
    if any(snapshot.valid_logits is None for snapshot in history):
        return raw_losses(history)
    columns = []
    for snapshot in history:
        logits = np.asarray(snapshot.valid_logits)
        labels = recover_labels(logits, snapshot.valid_losses)
        # Use the snapshot's own temperature where it has one, so that nothing is fitted twice.
        temperature = snapshot.temperature
        if not np.isfinite(temperature) or temperature <= 0:
            temperature = best_temperature(logits, labels)[0]
        columns.append(losses_at(logits, labels, temperature))
    return np.stack(columns, axis=1)


def raw_losses(history: Sequence[Snapshot]) -> Floats:
    """Per-row raw validation losses [n, snapshots]; a column's mean is that snapshot's loss."""
    return np.stack([loss_rows(one.valid_losses, one.valid_tokens) for one in history], axis=1)


def general_loss_rows(snapshot: Snapshot) -> Floats | None:
    """The row losses [n] on the general-text set, where there is one."""
    losses = snapshot.general_losses
    return None if losses is None else loss_rows(losses, snapshot.general_tokens)


def validation_labels(snapshot: Snapshot) -> Ints | None:
    """The class of each validation row [n], from its loss, its logits and whether it was predicted
    correctly; ``None`` without."""
    if snapshot.valid_logits is None or np.ndim(snapshot.valid_logits) != 2:
        return None
    logits = np.asarray(snapshot.valid_logits)
    return recover_labels(logits, snapshot.valid_losses, snapshot.valid_correct)


def stack_correct(columns: Sequence[Bools | None]) -> Bools | None:
    """Which rows were correct at each evaluation [n, snapshots]; ``None`` unless all are known."""
    known = [column for column in columns if column is not None]
    return np.stack(known, axis=1) if len(known) == len(columns) and known else None


def beats_chance(predictions: Ints, losses: Floats, labels: Ints) -> bool:
    """Whether the classes ``predictions`` [n] with ``losses`` [n] are significantly better than
    predicting the class frequencies of ``labels`` [n]. One of three is enough: a paired t interval
    of the losses against −log(share of the row's class); Newcombe's interval of the accuracy
    against always predicting the most frequent class; or ``follow_labels``."""
    shares = np.bincount(labels) / len(labels)
    lower_loss = paired_t(losses, -np.log(shares[labels])).high < 0
    more_correct = newcombe(predictions == labels, labels == int(shares.argmax()))[0] > 0
    return lower_loss or more_correct or follow_labels(predictions, labels)


def follow_labels(predictions: Ints, labels: Ints) -> bool:
    """Whether some class is predicted significantly more often for its own rows than for others
    (one Fisher's exact test per class, Holm correction, 5 %). This detects a model that was trained
    on balanced classes and is evaluated where one class is rare: by loss and by accuracy, always
    predicting the frequent class is better there."""
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
CorrectMetric = Literal["accuracy", "exact_match", "sentence_accuracy"]
Unit = CorrectMetric | Literal["tokens", "completions"]
UNIT_NAMES = {
    "accuracy": "accuracy",
    "exact_match": f"the {METRIC_NAMES['exact_match']}",
    "sentence_accuracy": f"the {METRIC_NAMES['sentence_accuracy']}",
    "tokens": "token accuracy",
    "completions": "the share of outputs that the best checkpoint completes verbatim",
}
VERBATIM_EVIDENCE = "completed_verbatim_train_above_valid"


@dataclass(frozen=True, slots=True)
class AccuracyGap:
    """Accuracy on the training sample minus accuracy on the validation rows, at one evaluation.

    ``of`` is the metric of correct rows; for generative models it is the unit: correct tokens, or
    outputs that the best checkpoint completes verbatim. ``low`` and ``high`` are the 95 % interval
    of the difference; the rows differ, so nothing is paired. ``beyond`` is the probability that the
    gap is above ``limits.GAP``."""

    train: float
    valid: float
    low: float
    high: float
    beyond: float
    step: int
    of: Unit = "accuracy"

    @property
    def value(self) -> float:
        """Training minus validation, from −1 to 1."""
        return self.train - self.valid

    @property
    def large(self) -> bool:
        """Above the threshold with a probability of 95 % or more."""
        return self.beyond >= limits.INTERVAL_LEVEL

    @property
    def small(self) -> bool:
        """Above the threshold with a probability of 5 % or less."""
        return self.beyond <= 1 - limits.INTERVAL_LEVEL

    def words(self) -> str:
        """``accuracy is 98 % on training rows and 75 % on validation rows (gap 23 points, 95 % CI
        15 to 31)``."""
        low, high = round(100 * self.low), round(100 * self.high)
        return (
            f"{self.name} is {percent_phrase(self.train)} on training rows and "
            f"{percent_phrase(self.valid)} on validation rows (gap {round(100 * self.value)} "
            f"points, {percent_phrase(limits.INTERVAL_LEVEL)} CI {signed(low, 'd')} to "
            f"{signed(high, 'd')})"
        )

    @property
    def name(self) -> str:
        """The name of the quantity, such as ``accuracy``."""
        return UNIT_NAMES[self.of]

    @property
    def subject(self) -> str:
        """The name with its article."""
        return f"the {self.name.removeprefix('the ')}"

    def evidence(self, name: str) -> Evidence:
        """The gap with its interval as an evidence item."""
        return evidence_item(name, self.value, self.low, self.high, self.step)


def accuracy_gap_of(
    snapshot: Snapshot, train_groups: Ints | None = None, valid_groups: Ints | None = None
) -> AccuracyGap | None:
    """The accuracy gap at one evaluation: Newcombe's interval of two rates, and a uniform prior on
    both (``stats/intervals.py``), with as many rows as they are worth if they come in groups;
    ``None`` where predictions are not correct or wrong, rows are missing, or all are of one
    group."""
    train, valid = snapshot.train_correct, snapshot.valid_correct
    if train is not None and valid is not None and len(train) and len(valid):
        counts = (*_effective(train, train_groups), *_effective(valid, valid_groups))
        if not np.isfinite(counts).all():
            return None
        shares = float(train.mean()), float(valid.mean())
        return _gap_of_counts(counts, *shares, snapshot.step, correct_metric(snapshot))
    # For generative models the unit is the row, since the tokens of a row are dependent (ratios of
    # sums over rows, Welch's interval).
    train_rows = correct_token_rows(snapshot.train_right, snapshot.train_tokens)
    valid_rows = correct_token_rows(snapshot.valid_right, snapshot.valid_tokens)
    if train_rows is None or valid_rows is None:
        return None
    train_rows = train_rows if train_groups is None else by_groups(train_rows, train_groups)
    valid_rows = valid_rows if valid_groups is None else by_groups(valid_rows, valid_groups)
    if min(len(train_rows), len(valid_rows)) < 2:
        return None
    difference = welch(train_rows, valid_rows, limits.INTERVAL_LEVEL)
    beyond = welch(train_rows - limits.GAP, valid_rows).above
    low, high = max(-1.0, difference.low), min(1.0, difference.high)
    shares = float(train_rows.mean()), float(valid_rows.mean())
    return AccuracyGap(*shares, low, high, beyond, snapshot.step, "tokens")


def _effective(hits: Bools, groups: Ints | None) -> tuple[float, float]:
    """How many rows were correct, and of how many: n ÷ the design effect in groups; NaN where all
    are of one group."""
    if groups is None:
        return float(hits.sum()), float(len(hits))
    effective = len(hits) / design_effect(hits, groups)
    return float(hits.mean()) * effective, effective


def completions_gap(snapshot: Snapshot) -> AccuracyGap | None:
    """The gap in outputs that a causal language model completes verbatim, training rows minus
    validation rows; ``None`` where either set was not measured."""
    shares = [(snapshot.outputs or {}).get(split, {}) for split in ("train", "valid")]
    if not all(share.get("verbatim_n") for share in shares):
        return None
    (train, n_1), (valid, n_2) = ((one["verbatim"], int(one["verbatim_n"])) for one in shares)
    counts = round(train * n_1), n_1, round(valid * n_2), n_2
    return _gap_of_counts(counts, train, valid, snapshot.step, "completions")


def _gap_of_counts(
    counts: tuple[float, float, float, float], train: float, valid: float, step: int, of: Unit
) -> AccuracyGap:
    low, high = rate_gap(*counts, limits.INTERVAL_LEVEL)
    beyond = gap_probability(*counts, limits.GAP)
    return AccuracyGap(train, valid, low, high, beyond, step, of)


def correct_metric(snapshot: Snapshot) -> CorrectMetric:
    """Which share the correct rows of a snapshot are, by the metrics measured beside them: of one
    class a row, of all its labels, or of all tags of a sentence."""
    names = set(snapshot.valid_metrics)
    if "entity_f1" in names:
        return "sentence_accuracy"
    return "exact_match" if {"f1_micro", "exact_match"} <= names else "accuracy"


def correct_token_rows(right: Floats | None, tokens: Ints | None) -> Floats | None:
    """The share of correct tokens, by row [n]; ``None`` where it is not known."""
    if right is None or tokens is None or not tokens.sum():
        return None
    return ratio_rows(right, tokens.astype(np.float64))


def is_at_floor(snapshot: Snapshot) -> bool:
    """Whether the training loss is near zero: 95 % of the training sample (for generative models,
    of its tokens) is correct; where predictions are not correct or wrong, 95 % of its rows get a
    probability of 90 % or more."""
    if snapshot.train_correct is not None and len(snapshot.train_correct):
        return bool(snapshot.train_correct.mean() >= limits.FLOOR_SHARE)
    if (right := correct_token_rows(snapshot.train_right, snapshot.train_tokens)) is not None:
        return bool(right.mean() >= limits.FLOOR_SHARE)
    losses = snapshot.train_losses
    return bool(len(losses)) and bool((losses < limits.FITTED).mean() >= limits.FLOOR_SHARE)


def last_gain(history: Sequence[Snapshot], losses: Floats) -> int:
    """The evaluation at which the predictions last improved: the lowest mean of ``losses``
    [rows, evaluations] or the highest accuracy, the first of equals."""
    best = int(losses.mean(axis=0).argmin())
    hits = [snapshot.valid_correct for snapshot in history]
    if any(one is None or not len(one) for one in hits):
        return best
    return max(best, int(np.argmax([float(np.mean(one)) for one in hits if one is not None])))
