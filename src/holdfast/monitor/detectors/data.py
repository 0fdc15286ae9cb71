"""Faults of the data: leakage, wrong labels, too few rows, too large a model for them."""

from __future__ import annotations

import numpy as np

from holdfast.core.labels import Label
from holdfast.core.records import Evidence, Finding, Floats, softmax
from holdfast.core.run_facts import LabelNoise
from holdfast.core.wording import percent_phrase
from holdfast.monitor import limits
from holdfast.monitor.detectors.rises import is_overfit
from holdfast.monitor.history import History
from holdfast.monitor.remedies import remedies_for
from holdfast.monitor.symptom import (
    FEW_ROWS,
    Symptom,
    clip_confidence,
    difference_evidence,
    evidence_item,
)
from holdfast.stats.intervals import wilson
from holdfast.stats.lapse import lapse_rate
from holdfast.stats.paired_tests import welch

COPIED_TARGETS = "the targets copy the source"
GIVEAWAY = "the text contains the label"
COPIES = "leakage: validation rows are known from training"


def leaking(history: History) -> Symptom | None:
    """``leaking`` where one of these holds:

    - a finding says that half of the targets or more equal their source (``target_is_source``), so
      that the model learns to copy;
    - a finding says that the text contains the label (``label_giveaway``), and nine of ten
      validation rows are correct;
    - the validation loss is below the loss on the training sample, both in evaluation mode, at the
      last two evaluations, significantly and by more than the margin;
    - a twentieth or more of the validation rows have a duplicate among the training rows: the same
      row, or the same features in the base model;
    - duplicates were not counted, and 60 % or more (by the whole interval) of certain validation
      rows are now fitted: of those that were wrong when 85 % of the training sample had become
      correct for good, net of the rows that were correct then and are wrong now. From then on rows
      become correct by memory, and memory holds training rows; in runs of texts without leakage up
      to 43 % became correct. Where predictions merely flip, as in an overfitted model, about as
      many rows become wrong as become correct.
    """
    rules = (_copied_targets, _leaking_column, _twins, _better_than_train, _repaired)
    return next(filter(None, (rule(history) for rule in rules)), None)


def _leak(
    because: str,
    strength: float,
    since: int,
    *evidence: Evidence,
    cause: str = COPIES,
    finding: str = "leaks",
) -> Symptom:
    return Symptom(
        because=because,
        strength=strength,
        label="leaking",
        cause=cause,
        since_step=since,
        evidence=evidence,
        remedies=remedies_for(finding),
    )


def _finding(history: History, check: str) -> Finding | None:
    return next((one for one in history.run_facts.findings if one.check == check), None)


def _copied_targets(history: History) -> Symptom | None:
    finding = _finding(history, "target_is_source")
    if finding is None or finding.score < limits.COPIED or not history.snapshots:
        return None
    return _leak(
        f"{percent_phrase(finding.score)} of the targets equal their source, so the model learns "
        "to copy",
        0.99,
        history.steps[0],
        evidence_item("share_of_targets_that_are_their_source", float(finding.score)),
        cause=COPIED_TARGETS,
        finding="copied targets",
    )


def _leaking_column(history: History) -> Symptom | None:
    finding, hits = _finding(history, "label_giveaway"), history.valid_hits
    if finding is None or finding.severity != "error" or hits is None or not history.has_validation:
        return None
    right = float(hits[:, -1].mean())
    if right < 0.9:
        return None
    low, high = wilson(float(hits[:, -1].sum()), len(hits))
    return _leak(
        f"{finding.because}, and {percent_phrase(right)} of the validation rows are correct",
        0.9,
        history.steps[0],
        evidence_item("share_of_texts_that_give_their_label_away", float(finding.score)),
        evidence_item("valid_accuracy", right, low, high, history.last_step),
        cause=GIVEAWAY,
        finding="giveaway",
    )


def _better_than_train(history: History) -> Symptom | None:
    if not history.has_validation or not history.probe.size:
        return None
    # Twice in a row: one evaluation may be better by chance. The rows differ, so nothing is paired.
    gaps = [welch(history.raw[:, k], history.probe[:, k], limits.ALARM_LEVEL) for k in (-2, -1)]
    if not all(gap.high < 0 and -gap.value > history.margin for gap in gaps):
        return None
    valid, train = history.valid_hits, history.probe_hits
    if valid is not None and train is not None and valid[:, -1].mean() < train[:, -1].mean():
        return None
    return _leak(
        f"the validation loss is {-gaps[-1].value:.3f} below the training loss, both measured in "
        "evaluation mode",
        clip_confidence(1 - gaps[-1].above),
        history.steps[-2],
        difference_evidence("valid_loss_above_train_probe", gaps[-1], history.last_step),
    )


def _twins(history: History) -> Symptom | None:
    if history.run_facts.copied_valid is None or not history.snapshots:
        return None
    twins, n = history.run_facts.copied_valid
    # A single duplicate is a coincidence, however few the rows.
    if twins < max(2, limits.TWINS * n):
        return None
    return _leak(
        f"{twins} of {n} validation rows are also training rows, or have the same features in the "
        "base model",
        0.99,
        history.steps[0],
        evidence_item("share_of_valid_rows_with_a_training_twin", twins / n, *wilson(twins, n)),
    )


def _repaired(history: History) -> Symptom | None:
    """Leakage where validation rows become correct that only memory could correct, once most of the
    training rows are correct.

    Of w rows wrong at that evaluation, m are fitted now, and l of the correct ones are wrong now.
    Predictions that flip by chance leave m − l near 0, however large m is; with leakage rows become
    correct and none are lost. So the share is (m − l)/w, with Wilson's limits of that count.
    """
    if not history.has_validation or history.valid_hits is None or history.probe_hits is None:
        return None
    # Where duplicates were counted, there is nothing to infer: a network that learns digits from
    # random weights also corrects most of its errors after 85 % of the training sample is correct.
    if history.run_facts.copied_valid is not None:
        return None
    rows = len(history.probe_hits)
    right = history.probe_hits.mean(axis=0) if rows else np.zeros(len(history.snapshots))
    # Training that first undoes what the model knew, as from a linear probe on random features, is
    # followed by learning, not by memory alone.
    early = int(np.flatnonzero(np.append(True, right < limits.EARLY))[-1])
    if early >= len(history.snapshots) - 1:
        return None
    wrong = ~history.valid_hits[:, early]
    n, mended = int(wrong.sum()), int((history.raw[wrong, -1] < limits.FITTED).sum())
    lost = int((~history.valid_hits[~wrong, -1]).sum())
    if n < limits.REPAIRED_ROWS:
        return None
    net = max(0, mended - lost)
    low, high = wilson(net, n)
    if low < limits.REPAIRED:
        return None
    step = history.steps[early]
    return _leak(
        f"of the {n} validation rows that were wrong at step {step}, when "
        f"{percent_phrase(right[early])} of the training sample was correct, {mended} now have a "
        "probability of 90 % or more, as if they had been trained on, and "
        f"{lost} of the others are now wrong",
        0.95,
        step,
        evidence_item("share_of_hard_valid_rows_fitted", net / n, low, high, history.last_step),
    )


WRONG_LABELS = "wrong labels"
LEAST = 40


def noisy_labels(history: History) -> Symptom | None:
    """``noisy_labels`` where the whole 90 % interval of the share of wrong labels is above 5 %,
    estimated from predictions that are more accurate than the most frequent class.

    The share is the lapse rate (``stats.lapse``) of a linear probe on the base model, over all
    labelled training and validation rows, each predicted by a fit that had not seen it. Without a
    linear probe it is that of the run's own predictions on the validation rows: the probabilities
    averaged over the later half of the evaluations up to the best one. The temperature is fitted
    with it, so an overfitted model that is confident and often wrong gives a wide interval and no
    symptom.

    Predictions near that baseline know too little, whatever their interval: of the rows that the
    most frequent class gets wrong they must get a fifth correct, significantly. (A small network
    with random weights, 26 % accuracy on images of ten classes, gave 4 to 36 % of wrong labels.)

    An interval whose lower end is at 5 % or below gives no symptom; neither does a run that still
    improves, nor fewer than 40 rows. A run that is also plainly overfit gets this label only where
    the whole interval is above 10 %: fewer wrong labels are named as its cause.
    """
    if not history.has_validation or (
        not history.is_at_plan_end and history.best > len(history.snapshots) - 3
    ):
        return None
    probe = history.run_facts.label_noise
    noise, whose = (
        (probe, "a linear probe") if probe else (_noise_by_own_predictions(history), "the run")
    )
    if noise is None or not telling(noise):
        return None
    overfitted = is_overfit(history) or (history.at_floor and history.far_behind)
    return Symptom(
        because=f"an estimated {percent_phrase(noise.rate)} of the labels are wrong "
        f"({percent_phrase(noise.low)} to {percent_phrase(noise.high)}), by the predictions of "
        f"{whose}, whose accuracy is {percent_phrase(noise.right)} on {noise.n:,} rows that it was "
        f"not trained on (most frequent class {percent_phrase(noise.base)})",
        strength=0.5 + limits.WRONG_LEVEL / 2,
        label=None if noise.low < limits.MANY_WRONG and overfitted else "noisy_labels",
        cause=WRONG_LABELS,
        blame=0.9,
        explains=("overfit", "memorizing"),
        evidence=(
            evidence_item("share_of_wrong_labels", noise.rate, noise.low, noise.high),
            evidence_item(
                "labels_answered_right", noise.right, *wilson(noise.right * noise.n, noise.n)
            ),
            evidence_item("share_of_the_commonest_class", noise.base),
        ),
        remedies=remedies_for("noisy labels"),
    )


def telling(noise: LabelNoise) -> bool:
    """Whether wrong labels are certain, by predictions that are informative."""
    if noise.n < LEAST:
        return False
    beyond_chance = wilson(noise.right * noise.n, noise.n)[0] > noise.base
    knows = noise.right - noise.base >= limits.KNOWS * (1 - noise.base)
    return beyond_chance and knows and noise.low > limits.WRONG_LABELS


def _noise_by_own_predictions(history: History) -> LabelNoise | None:
    """The share of wrong labels by the run's own predictions on the validation rows; ``None``
    without logits of classes, or where validation was never better than the class frequencies."""
    if history.labels is None or len(history.labels) < LEAST or not history.is_calibrated:
        return None
    # Average several checkpoints, since the confidence of one is partly its own noise: the later
    # half of the evaluations up to the best, without the first of all and without those at which
    # validation was no better than the class frequencies.
    means, chance = history.valid.mean(axis=0), history.chance or 0.0
    first = max(1, (history.best + 1) // 2)
    evaluations = [
        k for k in range(first, history.best + 1) if means[k] < limits.BELOW_CHANCE_SHARE * chance
    ]
    if not evaluations:
        return None
    probabilities: list[Floats] = []
    for snapshot in (history.snapshots[k] for k in evaluations):
        # Probabilities after temperature scaling [n, classes].
        temperature = snapshot.temperature if snapshot.temperature > 0 else 1.0
        scores = np.asarray(snapshot.valid_logits, dtype=np.float64) / temperature
        probabilities.append(softmax(scores))
    mean = np.mean(probabilities, axis=0)
    base = float(np.bincount(history.labels).max() / len(history.labels))
    right = float((mean.argmax(axis=1) == history.labels).mean())
    if right <= base:
        return None
    # A float32 softmax may give exactly 0, whose logarithm is infinite.
    scores, level = np.log(np.maximum(mean, 1e-12)), limits.OWN_PREDICTIONS_LEVEL
    lapse = lapse_rate(scores, history.labels, level=level)
    return LabelNoise(lapse.rate, lapse.low, lapse.high, right, base, lapse.n)


# Not underfit: a run that has not fitted its rows does not need more of them.
BY_FEW_ROWS: tuple[Label, ...] = ("overfit", "memorizing", "miscalibrated", "inconclusive")


def few_rows(history: History) -> Symptom | None:
    """A cause, without a label, where the last doubling of its rows took 5 % or more off the
    validation loss of a linear probe on the base model: then more rows would help further. Not
    where the run's own loss is below 0.1 nats, of which most cannot be gained any more.

    The blame grows with the gain. It measures the rows and not the run, so it has no step.
    """
    curve = history.run_facts.probe_curve
    if len(curve) < 2 or not history.snapshots:
        return None
    (rows, before), (full, after) = curve[-2], curve[-1]
    # Two parts of the same size, where there are very few rows, say nothing about more rows.
    if not before > 0 or full <= rows:
        return None
    gain = 1 - after / before
    if gain < limits.FEW_ROWS_GAIN:
        return None
    if history.has_validation and history.valid[:, history.best].mean() < limits.SOLVED_LOSS:
        return None
    return Symptom(
        because=f"going from {rows} to {full} rows took {percent_phrase(gain)} off the loss of a "
        "linear probe",
        cause=FEW_ROWS,
        blame=min(0.9, 4 * gain),
        explains=BY_FEW_ROWS,
        evidence=(
            evidence_item("probe_loss_gain_of_the_last_doubling", gain),
            evidence_item("train_rows", full),
        ),
        remedies=remedies_for("few training rows"),
    )


TOO_LARGE = "too large a model for these rows"
BY_SIZE: tuple[Label, ...] = ("overfit", "memorizing", "diverging", "inconclusive")


def too_large(history: History) -> Symptom | None:
    """A cause, without a label, where more than 40 million parameters are trainable, and more than
    150,000 per training row: above it full fine-tuning sometimes fails by chance (2006.04884). A
    plan that benchmarks measured did not (``RunFacts.trainable``)."""
    known = history.run_facts
    if not known.trainable or not known.train_rows or not history.snapshots:
        return None
    a_row = known.trainable / known.train_rows
    if known.trainable <= limits.SMALL or a_row <= limits.MOST_A_ROW:
        return None
    return Symptom(
        because=f"there are {a_row:,.0f} trainable parameters for each training row",
        cause=TOO_LARGE,
        blame=min(0.9, 0.5 + 0.1 * a_row / limits.MOST_A_ROW),
        explains=BY_SIZE,
        evidence=(
            evidence_item("learning_parameters_a_row", a_row, None, float(limits.MOST_A_ROW)),
        ),
        remedies=remedies_for("too large"),
    )
