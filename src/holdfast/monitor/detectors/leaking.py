"""Leaking: validation is too good to be true, or the data say so themselves."""

from __future__ import annotations

import numpy as np

from holdfast.core.records import Finding
from holdfast.monitor import limits
from holdfast.monitor.case import Case
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.remedies import for_copied_targets, for_giveaway, for_leaks
from holdfast.monitor.sign import Sign, item, shown, sure
from holdfast.stats.intervals import wilson
from holdfast.stats.student import welch

COPIED_TARGETS = "the targets copy the source"
GIVEAWAY = "the label stands in the text"
COPIES = "copies or leaks: validation rows are known from training"


def leaking(case: Case) -> Sign | None:
    """``leaking`` where one of these holds:

    - a finding says that half of the targets or more are their source (``target_is_source``), so
      that whatever is learned is copying;
    - a finding says that the label stands in the text (``label_giveaway``) and nine of ten
      validation rows are right;
    - validation is better than the train probe in evaluation mode, at the last two looks, beyond
      chance and by more than the margin;
    - a twentieth or more of the validation rows have a twin among the training rows: the same
      features on the untouched model;
    - of the validation rows that were wrong when 85 % of the train probe was right, 60 % or more
      (by the whole interval) are now fitted. From there on it is memory that mends rows, and memory
      holds training rows; honest runs mended up to 43 % of them.
    """
    for rule in (_copied_targets, _giveaway, _twins, _better_than_train, _repaired):
        sign = rule(case)
        if sign is not None:
            return sign
    return None


def _finding(case: Case, check: str) -> Finding | None:
    found = (one for one in case.circumstances.findings if one.check == check)
    return next(found, None)


def _copied_targets(case: Case) -> Sign | None:
    found = _finding(case, "target_is_source")
    if found is None or found.score < limits.COPIED or not case.history:
        return None
    rate = item("share_of_targets_that_are_their_source", float(found.score))
    return Sign(
        because=f"{found.score:.0%} of the targets are their source, so that copying it is all "
        "that is learned",
        strength=0.99,
        label="leaking",
        cause=COPIED_TARGETS,
        since_step=case.steps[0],
        evidence=(rate,),
        remedies=for_copied_targets(),
    )


def _giveaway(case: Case) -> Sign | None:
    found = _finding(case, "label_giveaway")
    if found is None or found.severity != "error" or case.valid_hits is None or not case.enough:
        return None
    right = float(case.valid_hits[:, -1].mean())
    if right < 0.9:
        return None
    return Sign(
        because=f"{found.because}, and {right:.0%} of validation is right",
        strength=0.9,
        label="leaking",
        cause=GIVEAWAY,
        since_step=case.steps[0],
        remedies=for_giveaway(),
        evidence=(
            item("share_of_texts_that_give_their_label_away", float(found.score)),
            item(
                "valid_accuracy",
                right,
                *wilson(float(case.valid_hits[:, -1].sum()), len(case.valid_hits)),
                step=case.now,
            ),
        ),
    )


def _better_than_train(case: Case) -> Sign | None:
    if not case.enough or not case.probe.size:
        return None
    gaps = [welch(case.raw[:, k], case.probe[:, k], limits.RARE) for k in (-2, -1)]
    if not all(gap.high < 0 and -gap.value > case.margin for gap in gaps) or _fewer_right(case):
        return None
    return Sign(
        because=f"the validation loss is {-gaps[-1].value:.3f} below that of the train probe, both "
        "in evaluation mode",
        strength=sure(1 - gaps[-1].above),
        label="leaking",
        cause=COPIES,
        since_step=case.steps[-2],
        remedies=for_leaks(),
        evidence=(shown("valid_loss_above_train_probe", gaps[-1], case.now),),
    )


def _fewer_right(case: Case) -> bool:
    if case.valid_hits is None or case.probe_hits is None:
        return False
    return bool(case.valid_hits[:, -1].mean() < case.probe_hits[:, -1].mean())


def _twins(case: Case) -> Sign | None:
    if case.circumstances.copied_valid is None or not case.history:
        return None
    twins, n = case.circumstances.copied_valid
    if twins < max(2, limits.TWINS * n):
        return None
    return Sign(
        because=f"{twins} of {n} validation rows are the same to the untouched model as a training "
        "row",
        strength=0.99,
        label="leaking",
        cause=COPIES,
        since_step=case.steps[0],
        evidence=(item("share_of_valid_rows_with_a_training_twin", twins / n, *wilson(twins, n)),),
        remedies=for_leaks(),
    )


def _repaired(case: Case) -> Sign | None:
    """Rows that are wrong once most of the training rows are right are mended by memory alone."""
    if not case.enough or case.valid_hits is None or case.probe_hits is None:
        return None
    right = case.probe_hits.mean(axis=0) if case.probe.size else np.zeros(len(case.history))
    early = next((look for look, share in enumerate(right) if share >= limits.EARLY), None)
    if early is None or early == len(case.history) - 1:
        return None
    wrong = ~case.valid_hits[:, early]
    n, mended = int(wrong.sum()), int((case.raw[wrong, -1] < limits.FITTED).sum())
    low, high = wilson(mended, n)
    if n < limits.REPAIRED_ROWS or low < limits.REPAIRED:
        return None
    step = case.steps[early]
    return Sign(
        because=f"of the {n} validation rows that were wrong at step {step}, when "
        f"{right[early]:.0%} of the train probe was right, {mended / n:.0%} are now answered with "
        "90 % or more, as if they were learned by heart too",
        strength=0.95,
        label="leaking",
        cause=COPIES,
        since_step=step,
        remedies=for_leaks(),
        evidence=(item("share_of_hard_valid_rows_fitted", mended / n, low, high, case.now),),
    )


DETECTORS.add("leaking", leaking)
