"""Underfitting: the run ends with more to learn, on the training rows themselves."""

from __future__ import annotations

from holdfast.core.records import Evidence
from holdfast.monitor import limits
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.detectors.rate_high import nothing_learned
from holdfast.monitor.detectors.rate_low import left_over, rate_low
from holdfast.monitor.history import History
from holdfast.monitor.remedies import remedies_for
from holdfast.monitor.symptom import Symptom, item, shown
from holdfast.stats.paired_tests import paired_t

TOO_SHORT = "too few steps"
BETTER = "better than always giving the class frequencies"


def underfit(history: History) -> Symptom | None:
    """``underfit`` at the end of the plan, where one of these holds:

    - the train probe is no better, or hardly, than always giving the class frequencies;
    - validation is worse than a linear probe on the untouched model, on the same rows beyond chance
      and by more than the margin, while the train probe is no better than at the best step;
    - validation still falls steeply: it is at its lowest, and over the last quarter of the steps it
      lost a tenth or more of its loss, beyond chance;
    - the rate is too low (``rate_low`` says why), and half of the train probe's first loss is left
      or validation has gained less than twice the margin.

    Before the end a falling loss is ``learning``; where the plan is not known, always. Never where
    the training rows are at their floor: they have nothing left to teach.
    """
    if not history.enough or not history.final or not history.probe.size or history.at_floor:
        return None
    rules = (_chance, _worse_than_probe, _steep, _slow)
    return next(filter(None, (rule(history) for rule in rules)), None)


def _chance(history: History) -> Symptom | None:
    if not nothing_learned(history):
        return None
    loss, chance = float(history.probe_means[-1]), history.chance
    assert chance is not None
    return _underfit(
        history,
        f"the training loss ends at {loss:.3f}, {'hardly' if loss < chance else 'no'} {BETTER} "
        f"({chance:.3f})",
        0.95,
        item("train_probe_loss", loss, step=history.now),
        item("loss_of_the_class_frequencies", chance, step=history.now),
    )


def _worse_than_probe(history: History) -> Symptom | None:
    reference = history.run_facts.probe_valid_losses
    if reference is None or len(reference) != len(history.valid):
        return None
    gap = paired_t(history.valid[:, -1], reference, limits.RARE)
    if not (gap.low > 0 and gap.value > history.margin) or history.probe_since_best.high < 0:
        return None
    because = f"{history.loss_name} ends {gap.value:.3f} above that of a linear probe"
    return _underfit(
        history, because, gap.above, shown("valid_above_linear_probe", gap, history.now)
    )


def _steep(history: History) -> Symptom | None:
    # Against the newest look that lies a quarter of the steps back; the first always does.
    line = history.now - (history.now - history.steps[0]) / 4
    look = max(i for i, step in enumerate(history.steps) if step <= line)
    gap = history.gap(history.valid, -1, look, limits.RARE)
    level = float(history.valid[:, -1].mean())
    lowest = history.best == len(history.snapshots) - 1
    if not lowest or not gap.high < 0 or -gap.value < limits.STEEP * level:
        return None
    because = (
        f"{history.loss_name} still fell by {-gap.value:.3f} to {level:.3f} over the last quarter "
        "of the steps"
    )
    return _underfit(history, because, 1 - gap.above, shown("valid_last_quarter", gap, history.now))


def _slow(history: History) -> Symptom | None:
    slow = rate_low(history)
    gained = history.gap(history.valid, -1, 0)
    short = left_over(history) > limits.SLOW or -gained.value < 2 * history.margin
    if slow is None or not short or history.above_best.low > 0:
        return None
    because = (
        f"{history.loss_name} changed by {gained.value:+.3f} over the whole run and the "
        f"training loss by {history.probe_means[-1] - history.probe_means[0]:+.3f}"
    )
    return _underfit(
        history, because, slow.blame, shown("valid_against_first", gained, history.now)
    )


def _underfit(history: History, because: str, strength: float, *evidence: Evidence) -> Symptom:
    return Symptom(
        because=because,
        strength=strength,
        label="underfit",
        cause=TOO_SHORT,
        blame=0.3,
        since_step=history.steps[0],
        evidence=evidence,
        remedies=remedies_for("learning", history),
    )


DETECTORS.add("underfit", underfit)
