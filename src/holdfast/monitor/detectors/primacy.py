"""Primacy: rows that were seen first are fitted more than rows seen later (2205.07802)."""

from __future__ import annotations

import math

import numpy as np

from holdfast.core.records import Floats, Label
from holdfast.monitor import limits
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.history import History
from holdfast.monitor.remedies import remedies_for
from holdfast.monitor.symptom import Symptom, item
from holdfast.stats.ranks import average_ranks

CAUSE = "the rows seen first are fitted more than those seen later"
EXPLAINS: tuple[Label, ...] = ("overfit", "memorizing", "underfit", "inconclusive")
LEAST = 30


def primacy(history: History) -> Symptom | None:
    """Speaks as a cause where the fall of each row's loss goes with how early the row was first
    used: Spearman's ρ of the first update against (loss now − loss at the start) at 0.2 or more,
    and its 99.9 % interval (Fisher's z, with the variance 1.06 ÷ (n − 3) of Fieller, Hartley and
    Pearson 1957) above 0. Only rows of the train probe that were used count, 30 at least, and only
    of a run that has taken a twentieth off their loss: before that there is nothing to be fitted.
    """
    seen = history.run_facts.first_seen
    if not history.comparable or seen is None or len(seen) != len(history.probe):
        return None
    used = np.asarray(seen) >= 0
    if history.probe_means[-1] > limits.NOTHING_LEARNED * history.probe_means[0]:
        return None
    if used.sum() < LEAST or np.ptp(np.asarray(seen)[used]) == 0:
        return None
    left = history.probe[used, -1] - history.probe[used, 0]
    rho, low, high = spearman(np.asarray(seen, dtype=np.float64)[used], left)
    if rho < limits.PRIMACY or not low > 0:
        return None
    return Symptom(
        because=CAUSE,
        cause=CAUSE,
        blame=0.5,
        explains=EXPLAINS,
        since_step=history.steps[0],
        evidence=(item("rank_correlation_first_seen_with_loss_left", rho, low, high, history.now),),
        remedies=remedies_for("primacy", history),
    )


def spearman(x: Floats, y: Floats, level: float = limits.RARE) -> tuple[float, float, float]:
    """ρ and its interval; NaN throughout where a side does not vary."""
    from scipy.special import ndtri

    ranks = average_ranks(x), average_ranks(y)
    if min(np.ptp(r) for r in ranks) == 0:
        return math.nan, math.nan, math.nan
    rho = float(np.corrcoef(*ranks)[0, 1])
    half = float(ndtri(0.5 + level / 2)) * math.sqrt(1.06 / (len(x) - 3))
    # Fisher's z of ±1 is infinite.
    middle = math.atanh(max(-0.999999, min(0.999999, rho)))
    return rho, math.tanh(middle - half), math.tanh(middle + half)


DETECTORS.add("primacy", primacy)
