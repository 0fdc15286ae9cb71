"""Learning: validation is still getting better."""

from __future__ import annotations

from holdfast.monitor.case import Case
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.remedies import for_learning
from holdfast.monitor.sign import Sign, shown, sure


def learning(case: Case) -> Sign | None:
    """``learning`` where the validation loss fell, beyond chance, against three looks ago, and the
    raw loss has not risen meanwhile."""
    if not case.enough or case.rose or not case.recent.high < 0:
        return None
    return Sign(
        because=f"{case.loss_name} fell by {-case.recent.value:.3f} since step "
        f"{case.steps[case.before]}",
        strength=sure(1 - case.recent.above),
        label="learning",
        since_step=case.steps[0],
        evidence=(
            shown("valid_recent_change", case.recent, case.now),
            shown("valid_best_against_first", case.learned, case.now),
        ),
        remedies=for_learning(case.history),
    )


DETECTORS.add("learning", learning)
