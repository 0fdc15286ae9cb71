"""Rate too high: the loss is no number, climbs, or jumps about; or the rate is simply unusual."""

from __future__ import annotations

import math

import numpy as np

from holdfast.core.records import Evidence, Floats, Label
from holdfast.monitor import limits
from holdfast.monitor.case import Case
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.detectors.overfit import is_rising
from holdfast.monitor.remedies import for_diverging
from holdfast.monitor.sign import Sign, item, shown, sure
from holdfast.stats.paired import Difference

CAUSE = "the learning rate is too high"
EXPLAINS: tuple[Label, ...] = ("underfit", "overfit", "memorizing", "miscalibrated", "inconclusive")


def rate_high(case: Case) -> Sign | None:
    """``diverging``, or else the cause of another label.

    ``diverging``: a loss is no number; or the train probe is significantly above where it started
    by more than a tenth, or has given back more than half of what it had learned, and the same
    size of rise already stood at the look before; or validation is significantly above its best
    and the train probe got worse with it.

    As a cause: the peak rate is above the usual ones; the train probe rose significantly and by
    more than a tenth between looks, twice or more; the gradient norm jumped to ten times its
    median; or the weights moved and the run ends no better than the class frequencies.
    """
    if case.broken is not None:
        return _broken(case)
    if not case.comparable:
        return None
    climbed = _climbed(case)
    symptoms = _symptoms(case)
    if climbed is not None:
        gap, than, since = climbed
        return Sign(
            because=f"the loss of the train probe is {gap.value:.3f} above {than}",
            strength=sure(gap.above), label="diverging", cause=CAUSE, explains=EXPLAINS,
            since_step=since, remedies=for_diverging(case.history),
            evidence=(shown("train_probe_rise", gap, case.now), *symptoms),
        )  # fmt: skip
    if not symptoms:
        return None
    return Sign(
        because="the course shows a learning rate that is too high",
        cause=CAUSE, blame=min(0.95, 0.6 + 0.2 * len(symptoms)), explains=EXPLAINS,
        evidence=symptoms, remedies=for_diverging(case.history),
    )  # fmt: skip


def _broken(case: Case) -> Sign:
    assert case.broken is not None
    step = case.broken.step
    return Sign(
        because=f"a loss at step {step} is not a number", strength=1.0, label="diverging",
        cause=f"{CAUSE}, or the precision too low", since_step=step,
        evidence=(item("loss_not_a_number", 1.0, step=step),),
        remedies=for_diverging(case.history),
    )  # fmt: skip


def _climbed(case: Case) -> tuple[Difference, str, int] | None:
    means = case.probe_means
    if len(means) < 2 or not np.isfinite(means).all():
        return None
    first, lowest = float(means[0]), float(means.min())
    small = max(limits.MARGIN, limits.MARGIN_SHARE * lowest)
    since = case.steps[-2]
    start = case.gap(case.probe, -1, 0, limits.RARE)
    if start.low > 0 and _stays(means, first + max(small, limits.ABOVE_START * first)):
        return start, "where it started", since
    best = case.gap(case.probe, -1, int(means.argmin()), limits.RARE)
    back = max(small, limits.GAVE_BACK * (first - lowest))
    if best.low > 0 and _stays(means, lowest + back):
        return best, "its lowest", since
    if case.enough and is_rising(case) and case.probe_since_best.low > 0:
        return case.probe_since_best, "that of the best step, and validation got worse too", (
            case.steps[case.best + 1]
        )  # fmt: skip
    return None


def _stays(means: Floats, level: float) -> bool:
    """Whether the last two means are above a level: one bad look early in a run is common."""
    return len(means) > 2 and bool(np.all(means[-2:] > level))


def _symptoms(case: Case) -> tuple[Evidence, ...]:
    found = []
    usual = case.circumstances.usual_rates
    if usual is not None and case.peak_rate > usual[1]:
        found.append(item("learning_rate", case.peak_rate, usual[0], usual[1]))
    bumps = _bumps(case)
    if bumps > 1:
        found.append(item("rises_of_the_train_probe", float(bumps), step=case.now))
    norms = [s.gradient_norm for s in case.history if s.gradient_norm is not None]
    if len(norms) > 3 and all(map(math.isfinite, norms)):
        jump = max(norms) / max(float(np.median(norms)), 1e-12)
        if jump > limits.JUMP:
            found.append(item("gradient_norm_jump", jump, step=case.now))
    distance = case.history[-1].distance
    if nothing_learned(case) and distance is not None and distance > limits.STILL:
        found.append(item("distance_moved_for_nothing", distance, step=case.now))
    return tuple(found)


def _bumps(case: Case) -> int:
    """How often the train probe rose between two looks, beyond chance and by a tenth or more."""
    means, count = case.probe_means, 0
    for look in range(1, len(means)):
        if means[look] > means[look - 1] * (1 + limits.BUMP) + limits.MARGIN:
            count += case.gap(case.probe, look, look - 1, limits.RARE).low > 0
    return count


def nothing_learned(case: Case) -> bool:
    """Whether the last train probe is no better than always giving the class frequencies."""
    chance = case.chance
    return chance is not None and bool(case.probe_means[-1] > limits.NOTHING_LEARNED * chance)


DETECTORS.add("rate_high", rate_high)
