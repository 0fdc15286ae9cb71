"""Rate too low: the loss falls slowly and straight, or the rate is simply unusual."""

from __future__ import annotations

import numpy as np

from holdfast.core.records import Evidence, Label
from holdfast.monitor import limits
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.history import History
from holdfast.monitor.remedies import remedies_for
from holdfast.monitor.symptom import Symptom, item

CAUSE = "the learning rate is too low"
EXPLAINS: tuple[Label, ...] = ("underfit", "learning", "healthy", "inconclusive")


def rate_low(history: History) -> Symptom | None:
    """Speaks as a cause where the train probe is not fitted yet and the peak rate is below the
    usual ones; or half of its first loss or more is left and it falls in a straight line, measured
    by the rates that were spent: a run that learns bends long before."""
    if not history.comparable or not history.probe.size or history.at_floor:
        return None
    if (history.probe[:, -1] < limits.FITTED).mean() >= limits.FLOOR_SHARE:
        return None
    usual, left = history.run_facts.usual_rates, left_over(history)
    found: list[Evidence] = []
    if usual is not None and history.peak_rate < usual[0]:
        found.append(item("learning_rate", history.peak_rate, usual[0], usual[1]))
    if left > limits.SLOW and straight(history):
        found.append(item("train_probe_loss_left", left, step=history.now))
    if not found:
        return None
    blame, distance = 0.6 + 0.2 * len(found), history.snapshots[-1].distance
    if distance is not None:
        found.append(item("distance_of_the_weights", distance, step=history.now))
    return Symptom(
        because="the loss falls slowly and straight",
        cause=CAUSE,
        blame=blame,
        explains=EXPLAINS,
        evidence=tuple(found),
        remedies=remedies_for("slow", history),
    )


def straight(history: History) -> bool:
    """Whether the train probe falls in a straight line against Σ rate × updates: the second half of
    that brought at least 60 % of what the first did, and both fell. Four looks at least."""
    means = history.probe_means
    # Σ rate × updates up to each look, by the trapezoid rule.
    rates = np.nan_to_num(np.array([snapshot.learning_rate for snapshot in history.snapshots]))
    pieces = np.diff(np.array(history.steps)) * (rates[1:] + rates[:-1]) / 2
    clock = np.concatenate([[0.0], np.cumsum(pieces)])
    if len(means) < 4 or not clock[-1] > 0:
        return False
    middle = float(np.interp(clock[-1] / 2, clock, means))
    early, late = means[0] - middle, middle - means[-1]
    return bool(early > 0 and late >= limits.LINEAR * early)


def left_over(history: History) -> float:
    """What is left of the first loss of the train probe."""
    first = float(history.probe_means[0])
    return float(history.probe_means[-1]) / first if first > 0 else 0.0


DETECTORS.add("rate_low", rate_low)
