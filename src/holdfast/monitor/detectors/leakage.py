"""Leaking: validation is too good to be true, or the data say so themselves."""

from __future__ import annotations

import numpy as np

from holdfast.core.records import Finding
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
    for rule in (_copied_targets, _giveaway, _twins, _better_than_train, _repaired):
        symptom = rule(history)
        if symptom is not None:
            return symptom
    return None


def _finding(history: History, check: str) -> Finding | None:
    found = (one for one in history.run_facts.findings if one.check == check)
    return next(found, None)


def _copied_targets(history: History) -> Symptom | None:
    found = _finding(history, "target_is_source")
    if found is None or found.score < limits.COPIED or not history.snapshots:
        return None
    rate = item("share_of_targets_that_are_their_source", float(found.score))
    return Symptom(
        because=f"{found.score:.0%} of the targets are equal to their source, so the model learns "
        "to copy",
        strength=0.99,
        label="leaking",
        cause=COPIED_TARGETS,
        since_step=history.steps[0],
        evidence=(rate,),
        remedies=remedies_for("copied targets"),
    )


def _giveaway(history: History) -> Symptom | None:
    found = _finding(history, "label_giveaway")
    if (
        found is None
        or found.severity != "error"
        or history.valid_hits is None
        or not history.enough
    ):
        return None
    right = float(history.valid_hits[:, -1].mean())
    if right < 0.9:
        return None
    return Symptom(
        because=f"{found.because}, and {right:.0%} of validation is right",
        strength=0.9,
        label="leaking",
        cause=GIVEAWAY,
        since_step=history.steps[0],
        remedies=remedies_for("giveaway"),
        evidence=(
            item("share_of_texts_that_give_their_label_away", float(found.score)),
            item(
                "valid_accuracy",
                right,
                *wilson(float(history.valid_hits[:, -1].sum()), len(history.valid_hits)),
                step=history.now,
            ),
        ),
    )


def _better_than_train(history: History) -> Symptom | None:
    if not history.enough or not history.probe.size:
        return None
    # Twice in a row: one look may be better by luck. The rows differ, so nothing is paired.
    gaps = [welch(history.raw[:, k], history.probe[:, k], limits.RARE) for k in (-2, -1)]
    if not all(gap.high < 0 and -gap.value > history.margin for gap in gaps) or _fewer_right(
        history
    ):
        return None
    return Symptom(
        because=f"the validation loss is {-gaps[-1].value:.3f} below the training loss, both "
        "measured in evaluation mode",
        strength=sure(1 - gaps[-1].above),
        label="leaking",
        cause=COPIES,
        since_step=history.steps[-2],
        remedies=remedies_for("leaks"),
        evidence=(shown("valid_loss_above_train_probe", gaps[-1], history.now),),
    )


def _fewer_right(history: History) -> bool:
    if history.valid_hits is None or history.probe_hits is None:
        return False
    return bool(history.valid_hits[:, -1].mean() < history.probe_hits[:, -1].mean())


def _twins(history: History) -> Symptom | None:
    if history.run_facts.copied_valid is None or not history.snapshots:
        return None
    twins, n = history.run_facts.copied_valid
    # A single twin is a coincidence, however few the rows.
    if twins < max(2, limits.TWINS * n):
        return None
    return Symptom(
        because=f"{twins} of {n} validation rows are also training rows, or have the same features "
        "in the base model",
        strength=0.99,
        label="leaking",
        cause=COPIES,
        since_step=history.steps[0],
        evidence=(item("share_of_valid_rows_with_a_training_twin", twins / n, *wilson(twins, n)),),
        remedies=remedies_for("leaks"),
    )


def _repaired(history: History) -> Symptom | None:
    """Rows that are wrong once most of the training rows are right are mended by memory alone.

    Of w rows wrong at that evaluation m are fitted now, and l of the right ones are wrong now.
    Predictions that change sides by chance leave m − l near 0, however large m is; a leak mends and
    loses nothing. So the share is (m − l)/w, with Wilson's limits of that count.
    """
    if not history.enough or history.valid_hits is None or history.probe_hits is None:
        return None
    right = (
        history.probe_hits.mean(axis=0) if history.probe.size else np.zeros(len(history.snapshots))
    )
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
    return Symptom(
        because=f"of the {n} validation rows that were wrong at step {step}, when "
        f"{right[early]:.0%} of the training sample was right, {mended} now have a probability of "
        f"90 % or more, as if they had been trained on, and {lost} of the others are now wrong",
        strength=0.95,
        label="leaking",
        cause=COPIES,
        since_step=step,
        remedies=remedies_for("leaks"),
        evidence=(item("share_of_hard_valid_rows_fitted", net / n, low, high, history.now),),
    )


DETECTORS.add("leaking", leaking)
