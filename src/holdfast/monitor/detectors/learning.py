"""Learning: validation is still getting better."""

from __future__ import annotations

from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.history import History
from holdfast.monitor.remedies import remedies_for
from holdfast.monitor.symptom import Symptom, shown, sure


def learning(history: History) -> Symptom | None:
    """``learning`` where the validation loss fell, beyond chance and by more than a trifle, against
    three looks ago, and the raw loss has not risen meanwhile."""
    if not history.enough or history.rose or not history.recent.high < 0:
        return None
    if -history.recent.value < history.trifle:
        return None
    return Symptom(
        because=f"{history.loss_name} fell by {-history.recent.value:.3f} since step "
        f"{history.steps[history.before]}",
        strength=sure(1 - history.recent.above),
        label="learning",
        since_step=history.steps[0],
        evidence=(
            shown("valid_recent_change", history.recent, history.now),
            shown("valid_best_against_first", history.learned, history.now),
        ),
        remedies=remedies_for("learning", history),
    )


DETECTORS.add("learning", learning)
