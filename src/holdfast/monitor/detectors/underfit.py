"""Underfitting: the run ends with more to learn, on the training rows themselves."""

from __future__ import annotations

from holdfast.core.records import Evidence
from holdfast.monitor import limits
from holdfast.monitor.case import Case
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.detectors.rate_high import nothing_learned
from holdfast.monitor.detectors.rate_low import left_over, rate_low
from holdfast.monitor.remedies import for_learning
from holdfast.monitor.sign import Sign, item, shown
from holdfast.stats.paired import Difference
from holdfast.stats.student import paired_t

TOO_SHORT = "too few steps"
NO_BETTER = "no better than always giving the class frequencies"


def underfit(case: Case) -> Sign | None:
    """``underfit`` at the end of the plan, where one of these holds:

    - the train probe is no better than always giving the class frequencies;
    - validation is worse than a linear probe on the untouched model, on the same rows beyond chance
      and by more than the margin, while the train probe is no better than at the best step;
    - validation still falls steeply: it is at its lowest, and over the last quarter of the steps it
      lost a tenth or more of its loss, beyond chance;
    - the rate is too low (``rate_low`` says why), and half of the train probe's first loss is left
      or validation has gained less than twice the margin.

    Before the end a falling loss is ``learning``; where the plan is not known, always. Never where
    the training rows are at their floor: they have nothing left to teach.
    """
    if not case.enough or not case.final or not case.probe.size or case.at_floor:
        return None
    for rule in (_chance, _worse_than_probe, _steep, _slow):
        sign = rule(case)
        if sign is not None:
            return sign
    return None


def _chance(case: Case) -> Sign | None:
    if not nothing_learned(case):
        return None
    loss, chance = float(case.probe_means[-1]), case.chance
    return _sign(
        case,
        f"the train probe ends at {loss:.3f}, {NO_BETTER}",
        0.95,
        item("train_probe_loss", loss, step=case.now),
        item("loss_of_the_class_frequencies", chance, step=case.now),
    )


def _worse_than_probe(case: Case) -> Sign | None:
    reference = case.circumstances.probe_valid_losses
    if reference is None or len(reference) != len(case.valid):
        return None
    gap = paired_t(case.valid[:, -1], reference, limits.RARE)
    if not (gap.low > 0 and gap.value > case.margin) or case.probe_since_best.high < 0:
        return None
    because = f"{case.loss_name} ends {gap.value:.3f} above that of a linear probe"
    return _sign(case, because, gap.above, shown("valid_above_linear_probe", gap, case.now))


def _steep(case: Case) -> Sign | None:
    gap = last_quarter(case)
    level = float(case.valid[:, -1].mean())
    lowest = case.best == len(case.history) - 1
    if not lowest or not gap.high < 0 or -gap.value < limits.STEEP * level:
        return None
    because = (
        f"{case.loss_name} still fell by {-gap.value:.3f} to {level:.3f} over the last quarter of "
        "the steps"
    )
    return _sign(case, because, 1 - gap.above, shown("valid_last_quarter", gap, case.now))


def _slow(case: Case) -> Sign | None:
    slow = rate_low(case)
    gained = case.gap(case.valid, -1, 0)
    short = left_over(case) > limits.SLOW or -gained.value < 2 * case.margin
    if slow is None or not short or case.above_best.low > 0:
        return None
    because = (
        f"{case.loss_name} changed by {gained.value:+.3f} over the whole run and the train probe "
        f"by {case.probe_means[-1] - case.probe_means[0]:+.3f}"
    )
    return _sign(case, because, slow.blame, shown("valid_against_first", gained, case.now))


def last_quarter(case: Case) -> Difference:
    """The last state against the newest one that lies a quarter of the steps back."""
    line = case.now - (case.now - case.steps[0]) / 4
    look = max(i for i, step in enumerate(case.steps) if step <= line)
    return case.gap(case.valid, -1, look, limits.RARE)


def _sign(case: Case, because: str, strength: float, *evidence: Evidence) -> Sign:
    return Sign(
        because=because,
        strength=strength,
        label="underfit",
        cause=TOO_SHORT,
        blame=0.3,
        since_step=case.steps[0],
        evidence=evidence,
        remedies=for_learning(case.history),
    )


DETECTORS.add("underfit", underfit)
