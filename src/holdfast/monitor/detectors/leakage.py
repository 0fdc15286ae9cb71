"""Leaking: validation is too good to be true, or the data say so themselves."""

from __future__ import annotations

import numpy as np

from holdfast.core.records import Evidence, Finding
from holdfast.monitor import limits
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.history import History
from holdfast.monitor.remedies import remedies_for
from holdfast.monitor.symptom import Symptom, item, shown, sure
from holdfast.stats.intervals import wilson
from holdfast.stats.paired_tests import welch

COPIED_TARGETS = "the targets copy the source"
GIVEAWAY = "the label stands in the text"
COPIES = "copies or leaks: validation rows are known from training"


def leaking(history: History) -> Symptom | None:
    """``leaking`` where one of these holds:

    - a finding says that half of the targets or more are their source (``target_is_source``), so
      that whatever is learned is copying;
    - a finding says that the label stands in the text (``label_giveaway``) and nine of ten
      validation rows are right;
    - validation is better than the train probe in evaluation mode, at the last two looks, beyond
      chance and by more than the margin;
    - a twentieth or more of the validation rows have a twin among the training rows: the same
      row, or the same features on the untouched model;
    - of the validation rows that were wrong when 85 % of the train probe was right, 60 % or more
      (by the whole interval) are now fitted, net of the rows that were right then and are wrong
      now. From there on it is memory that mends rows, and memory holds training rows; honest runs
      mended up to 43 % of them. Predictions that merely change sides, as those of an overfitted
      model do, lose about as many rows as they mend.
    """
    rules = (_copied_targets, _giveaway, _twins, _better_than_train, _repaired)
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
    found = _finding(history, "target_is_source")
    if found is None or found.score < limits.COPIED or not history.snapshots:
        return None
    return _leak(
        f"{found.score:.0%} of the targets are equal to their source, so the model learns to copy",
        0.99,
        history.steps[0],
        item("share_of_targets_that_are_their_source", float(found.score)),
        cause=COPIED_TARGETS,
        finding="copied targets",
    )


def _giveaway(history: History) -> Symptom | None:
    found, hits = _finding(history, "label_giveaway"), history.valid_hits
    if found is None or found.severity != "error" or hits is None or not history.enough:
        return None
    right = float(hits[:, -1].mean())
    if right < 0.9:
        return None
    low, high = wilson(float(hits[:, -1].sum()), len(hits))
    return _leak(
        f"{found.because}, and {right:.0%} of validation is right",
        0.9,
        history.steps[0],
        item("share_of_texts_that_give_their_label_away", float(found.score)),
        item("valid_accuracy", right, low, high, history.now),
        cause=GIVEAWAY,
        finding="giveaway",
    )


def _better_than_train(history: History) -> Symptom | None:
    if not history.enough or not history.probe.size:
        return None
    # Twice in a row: one look may be better by luck. The rows differ, so nothing is paired.
    gaps = [welch(history.raw[:, k], history.probe[:, k], limits.RARE) for k in (-2, -1)]
    if not all(gap.high < 0 and -gap.value > history.margin for gap in gaps):
        return None
    valid, train = history.valid_hits, history.probe_hits
    if valid is not None and train is not None and valid[:, -1].mean() < train[:, -1].mean():
        return None
    return _leak(
        f"the validation loss is {-gaps[-1].value:.3f} below the training loss, both measured in "
        "evaluation mode",
        sure(1 - gaps[-1].above),
        history.steps[-2],
        shown("valid_loss_above_train_probe", gaps[-1], history.now),
    )


def _twins(history: History) -> Symptom | None:
    if history.run_facts.copied_valid is None or not history.snapshots:
        return None
    twins, n = history.run_facts.copied_valid
    # A single twin is a coincidence, however few the rows.
    if twins < max(2, limits.TWINS * n):
        return None
    return _leak(
        f"{twins} of {n} validation rows are also training rows, or have the same features in the "
        "base model",
        0.99,
        history.steps[0],
        item("share_of_valid_rows_with_a_training_twin", twins / n, *wilson(twins, n)),
    )


def _repaired(history: History) -> Symptom | None:
    """Rows that are wrong once most of the training rows are right are mended by memory alone.

    Of w rows wrong at that evaluation m are fitted now, and l of the right ones are wrong now.
    Predictions that change sides by chance leave m − l near 0, however large m is; a leak mends and
    loses nothing. So the share is (m − l)/w, with Wilson's limits of that count.
    """
    if not history.enough or history.valid_hits is None or history.probe_hits is None:
        return None
    rows = len(history.probe_hits)
    right = history.probe_hits.mean(axis=0) if rows else np.zeros(len(history.snapshots))
    early = next((look for look, share in enumerate(right) if share >= limits.EARLY), None)
    if early is None or early == len(history.snapshots) - 1:
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
        f"of the {n} validation rows that were wrong at step {step}, when {right[early]:.0%} of "
        f"the training sample was right, {mended} now have a probability of 90 % or more, as if "
        f"they had been trained on, and {lost} of the others are now wrong",
        0.95,
        step,
        item("share_of_hard_valid_rows_fitted", net / n, low, high, history.now),
    )


DETECTORS.add("leaking", leaking)
