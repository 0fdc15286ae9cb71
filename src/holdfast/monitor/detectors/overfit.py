"""Overfitting: validation got worse while training did not, and it shows in the answers.

The raw validation loss decides whether anything got worse, since that is the curve that a person
sees rise. Whether it is ``overfit`` or only ``miscalibrated`` is a question about the answers.
"""

from __future__ import annotations

from holdfast.core.records import Evidence
from holdfast.monitor import limits
from holdfast.monitor.case import Case
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.remedies import for_overfit
from holdfast.monitor.sign import Sign, item, shown, sure

TOO_LONG = "trained too long for this much data"
HARMS = {
    "both": "both its answers and its certainty suffer",
    "answers": "its answers suffer",
    "certainty": "only its certainty suffers so far",
}


def overfit(case: Case) -> Sign | None:
    """``overfit`` since the look after the best, where the loss rose (``Case.rose``) and one of
    these holds:

    - the answers got worse: the loss after the best temperature, or the share of right answers, is
      worse than at its best by the limit that holds for every choice of the best;
    - the gap of right answers between train probe and validation is above 10 points by its whole
      interval;
    - the rows cannot tell whether it is, and more than half of what the best state had gained over
      the class frequencies is lost again.

    Its own cause is time: strong where most of the run lies beyond the best step, weak where the
    best was just now, so that few rows or a large model may explain it better.
    """
    if not case.rose or not _is_overfit(case):
        return None
    best = case.raw_best if case.raw_rose else case.best
    beyond = 1 - case.steps[best] / max(1, case.now)
    assert case.harm is not None
    meanwhile = " while the train probe did not get worse" if case.probe.size else ""
    return Sign(
        because=f"{rise_words(case)}{meanwhile}: {HARMS[case.harm]}",
        strength=sure(1 - rise_p(case)),
        label="overfit",
        cause=TOO_LONG,
        blame=min(0.9, beyond),
        since_step=case.steps[best + 1],
        evidence=(
            *rise_evidence(case),
            item("share_of_the_run_beyond_the_best", beyond, step=case.steps[best]),
        ),
        remedies=for_overfit(case.history, best, case.kept_look),
    )


def _is_overfit(case: Case) -> bool:
    if case.answers_worse:
        return True
    gap = case.accuracy_gap
    if gap is None or gap.large:
        return gap is not None
    lost = case.given_back
    return not gap.small and lost is not None and lost > limits.GIVEN_BACK


def rise_words(case: Case) -> str:
    """``the validation loss is 1.204 above its best at step 40 (p = 0.003)``, by the raw loss where
    that rose."""
    if case.raw_rose:
        name, value, step = "the validation loss", case.raw_above_best.value, case.raw_best
    else:
        name, value, step = case.loss_name, case.above_best.value, case.best
    p = rise_p(case)
    return f"{name} is {value:.3f} above its best at step {case.steps[step]} (p = {p:.3g})"


def rise_p(case: Case) -> float:
    return case.raw_rise.p_value if case.raw_rose else case.rise.p_value


def rise_evidence(case: Case) -> tuple[Evidence, ...]:
    """Both losses above their best, what the train probe did, and the metric."""
    wrong = case.error_rise
    found = [
        shown("valid_loss_above_best", case.raw_above_best, case.now),
        item("p_value_above_best", rise_p(case), step=case.now),
    ]
    if case.refined:
        found.append(shown("valid_refined_loss_above_best", case.above_best, case.now))
        found.append(item("best_temperature", float(case.history[-1].temperature), step=case.now))
    if wrong is not None:
        lost = (-wrong.value, -wrong.high, -wrong.low)
        found.append(item("valid_accuracy_above_best", *lost, step=case.now))
    if case.given_back is not None:
        found.append(item("share_of_the_gain_given_back", case.given_back, step=case.now))
    since = case.gap(case.probe, -1, case.raw_best)
    return (*found, shown("train_probe_change_since_best", since, case.now))


DETECTORS.add("overfit", overfit)
