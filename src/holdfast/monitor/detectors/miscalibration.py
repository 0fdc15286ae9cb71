"""Miscalibration: confidence overfits before knowledge does.

Raw cross-entropy is knowing plus being as sure as one should be (2501.19195). On small data the
second part goes wrong first, and a rising raw loss is the commonest false alarm of early stopping.
"""

from __future__ import annotations

from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.detectors.overfit import rise_evidence, rise_words
from holdfast.monitor.history import History
from holdfast.monitor.remedies import remedies_for
from holdfast.monitor.symptom import Symptom, sure

CAUSE = "overconfidence: the predicted probabilities exceed the accuracy"


def miscalibrated(history: History) -> Symptom | None:
    """``miscalibrated`` where the raw loss rose (``History.raw_rose``), the answers did not get
    worse, and the gap of right answers between train probe and validation is below 10 points with
    a probability of 95 %: the model holds on unseen rows and is only too sure.

    Needs answers that are right or wrong, and the logits of every snapshot. Where the interval of
    the gap holds 10 points, the rows cannot tell this from ``overfit``.
    """
    if not history.raw_rose or history.answers_worse or not history.refined:
        return None
    gap = history.accuracy_gap
    if gap is None or not gap.small:
        return None
    temperature = float(history.snapshots[-1].temperature)
    return Symptom(
        because=f"{rise_words(history)}, but neither accuracy nor the calibrated loss (temperature "
        f"{temperature:.2f}) got significantly worse: it generalizes, and is overconfident",
        strength=sure(1 - history.raw_rise.p_value),
        label="miscalibrated",
        cause=CAUSE,
        blame=0.5,
        since_step=history.steps[history.raw_best + 1],
        evidence=rise_evidence(history),
        remedies=remedies_for("miscalibrated"),
    )


DETECTORS.add("miscalibrated", miscalibrated)
