"""Rate too low: the weights hardly move, and the loss falls slowly and straight."""

from __future__ import annotations

import numpy as np

from holdfast.core.records import Evidence, Label
from holdfast.monitor import limits
from holdfast.monitor.case import Case
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.remedies import for_slow
from holdfast.monitor.sign import Sign, item

CAUSE = "the learning rate is too low"
EXPLAINS: tuple[Label, ...] = ("underfit", "learning", "healthy", "inconclusive")


def rate_low(case: Case) -> Sign | None:
    """Speaks as a cause where the train probe is not fitted yet and the peak rate is below the
    usual ones; or, where the usual ones are not known, the weights have moved by less than 0.2 %
    over the run and the train probe still falls as fast as in its first half."""
    if not case.comparable or not case.probe.size or _fitted(case):
        return None
    usual, distance = case.circumstances.usual_rates, case.history[-1].distance
    found: list[Evidence] = []
    if usual is not None and case.peak_rate < usual[0]:
        found.append(item("learning_rate", case.peak_rate, usual[0], usual[1]))
    still = distance is not None and distance < limits.STILL
    if still and (found or (usual is None and straight(case))):
        found.append(item("distance_of_the_weights", distance, step=case.now))
    if not found:
        return None
    return Sign(
        because="the weights hardly move", cause=CAUSE, blame=0.6 + 0.2 * len(found),
        explains=EXPLAINS, evidence=tuple(found), remedies=for_slow(case.history),
    )  # fmt: skip


def straight(case: Case) -> bool:
    """Whether the train probe falls in a straight line: its second half by updates brought at least
    60 % of the first, and both fell."""
    means, steps = case.probe_means, np.array(case.steps)
    middle = float(np.interp((steps[0] + steps[-1]) / 2, steps, means))
    early, late = means[0] - middle, middle - means[-1]
    return bool(len(means) > 3 and early > 0 and late >= limits.LINEAR * early)


def _fitted(case: Case) -> bool:
    return bool((case.probe[:, -1] < limits.FITTED).mean() >= limits.FLOOR_SHARE)


DETECTORS.add("rate_low", rate_low)
