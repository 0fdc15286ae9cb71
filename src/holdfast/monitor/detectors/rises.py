"""Validation got worse while training did not: overfitting, miscalibration, and the accuracy gap.

The raw validation loss decides whether anything got worse, since a reader sees that curve rise.
Whether the run is ``overfit`` or only ``miscalibrated`` depends on the predictions. Raw
cross-entropy is the sum of a refinement error and a calibration error (2501.19195). On small data
the second rises first, which is the most frequent false alarm of early stopping.
"""

from __future__ import annotations

from holdfast.core.records import Evidence
from holdfast.core.wording import p_value_phrase, percent_phrase
from holdfast.monitor import limits
from holdfast.monitor.evidence import VERBATIM_EVIDENCE
from holdfast.monitor.history import History
from holdfast.monitor.remedies import overfit_remedies, remedies_for
from holdfast.monitor.symptom import (
    FEW_ROWS,
    OVERCONFIDENT,
    TOO_LONG,
    Symptom,
    clip_confidence,
    difference_evidence,
    evidence_item,
)
from holdfast.stats.intervals import rate_gap

# How the p-value of a rise is computed (``stats/sequential_rise.py``).
OVER_EVALUATIONS = "test over all evaluations"
HARMS = {
    "both": "both the predictions and their probabilities got worse",
    "answers": "the predictions got worse",
    "certainty": "so far only the predicted probabilities got worse",
}


def overfit(history: History) -> Symptom | None:
    """``overfit`` since the evaluation after the best one, where the loss rose
    (``History.has_risen``) and one of these holds:

    - the predictions got worse: the calibrated loss or the accuracy is worse than at its best, by
      the limit that holds for every choice of the best;
    - unseen rows are far behind the training sample (``History.far_behind``);
    - the rows are too few to decide this, and more than half of the best checkpoint's gain over the
      class frequencies is lost again.

    Its own cause is the length of training: strong where most of the run is after the best step,
    weak where the best step is recent, so that few rows or a large model may explain it better.
    """
    if not is_overfit(history):
        return None
    best = history.raw_best if history.raw_has_risen else history.best
    # By steps: evaluations need not be evenly spaced.
    beyond = 1 - history.steps[best] / max(1, history.last_step)
    assert history.harm is not None
    # A run whose last checkpoint is kept was not too long.
    last = history.kept_place == len(history.snapshots) - 1
    meanwhile = " while the training loss did not rise" if history.probe.size else ""
    return Symptom(
        because=f"{rise_words(history)}{meanwhile}: {HARMS[history.harm]}",
        strength=clip_confidence(1 - rise_p(history)),
        label="overfit",
        cause=FEW_ROWS if last else TOO_LONG,
        blame=0.3 if last else min(0.9, beyond),
        since_step=history.steps[best + 1],
        evidence=(
            *rise_evidence(history),
            *(
                ()
                if history.completions is None
                else (history.completions.evidence(VERBATIM_EVIDENCE),)
            ),
            evidence_item("share_of_the_run_beyond_the_best", beyond, step=history.steps[best]),
        ),
        remedies=remedies_for("gap of few rows") if last else overfit_remedies(history, best),
    )


def is_overfit(history: History) -> bool:
    """Whether the loss rose, and one of the three conditions of ``overfit`` holds."""
    if not history.has_risen:
        return False
    if history.answers_worse:
        return True
    gap = history.accuracy_gap
    if gap is None or history.far_behind:
        return gap is not None
    lost = history.given_back
    return not gap.small and lost is not None and lost > limits.GIVEN_BACK


def rise_words(history: History) -> str:
    """``the validation loss is 1.204 above its lowest value (step 40; test over all
    evaluations, p = 0.003)``, by the raw loss where that rose."""
    if history.raw_has_risen:
        value, step = history.raw_above_best.value, history.raw_best
        name = "the raw validation loss" if history.is_calibrated else "the validation loss"
    else:
        name, value, step = history.loss_name, history.above_best.value, history.best
    p = p_value_phrase(rise_p(history), OVER_EVALUATIONS)
    return f"{name} is {value:.3f} above its lowest value (step {history.steps[step]}; {p})"


def rise_p(history: History) -> float:
    """The p-value of the rise that ``rise_words`` describes."""
    return history.raw_rise.p_value if history.raw_has_risen else history.rise.p_value


def rise_evidence(history: History) -> tuple[Evidence, ...]:
    """Both losses relative to their best, the change of the training loss, and the metric."""
    wrong = history.error_rise
    evidence = [
        difference_evidence("valid_loss_above_best", history.raw_above_best, history.last_step),
        evidence_item("p_value_above_best", rise_p(history), step=history.last_step),
    ]
    if history.is_calibrated:
        temperature = float(history.snapshots[-1].temperature)
        evidence.append(
            difference_evidence(
                "valid_refined_loss_above_best", history.above_best, history.last_step
            )
        )
        evidence.append(evidence_item("best_temperature", temperature, step=history.last_step))
    if wrong is not None:
        lost = (-wrong.value, -wrong.high, -wrong.low)
        evidence.append(evidence_item("valid_accuracy_above_best", *lost, step=history.last_step))
    if history.given_back is not None:
        evidence.append(
            evidence_item(
                "share_of_the_gain_given_back", history.given_back, step=history.last_step
            )
        )
    since = history.gap(history.probe, -1, history.raw_best)
    return (
        *evidence,
        difference_evidence("train_probe_change_since_best", since, history.last_step),
    )


def miscalibrated(history: History) -> Symptom | None:
    """``miscalibrated`` where the raw loss rose (``History.raw_has_risen``), the predictions did
    not get worse, and the accuracy gap (training sample − validation) is below 10 points with a
    probability of 95 %: the model generalizes and is only overconfident.

    Needs predictions that are correct or wrong, and the logits of every snapshot. Where the
    interval of the gap contains 10 points, the rows are too few to distinguish this from
    ``overfit``.
    """
    if not history.raw_has_risen or history.answers_worse or not history.is_calibrated:
        return None
    gap = history.accuracy_gap
    if gap is None or not gap.small:
        return None
    temperature = float(history.snapshots[-1].temperature)
    return Symptom(
        because=f"{rise_words(history)}, but neither accuracy nor the calibrated loss (temperature "
        f"{temperature:.2f}) got significantly worse: the model generalizes but is overconfident",
        strength=clip_confidence(1 - history.raw_rise.p_value),
        label="miscalibrated",
        cause=OVERCONFIDENT,
        blame=0.5,
        since_step=history.steps[history.raw_best + 1],
        evidence=rise_evidence(history),
        remedies=remedies_for("miscalibrated"),
    )


def disparity(history: History) -> Symptom | None:
    """The accuracy gap (training sample − validation) with Newcombe's interval, where even its
    lower limit is 5 points or more.

    A gap by itself is no fault, since every model that learns has one. So this is only evidence for
    the label of another detector, and never a cause.
    """
    if not history.has_validation or history.valid_hits is None or history.probe_hits is None:
        return None
    train, valid = history.probe_hits[:, -1], history.valid_hits[:, -1]
    low, high = rate_gap(int(train.sum()), len(train), int(valid.sum()), len(valid))
    if low < limits.DISPARITY:
        return None
    gap = float(train.mean() - valid.mean())
    return Symptom(
        because=f"accuracy is {percent_phrase(train.mean(), 1)} on training rows and "
        f"{percent_phrase(valid.mean(), 1)} on validation rows",
        evidence=(
            evidence_item("accuracy_train_probe_above_valid", gap, low, high, history.last_step),
        ),
    )
