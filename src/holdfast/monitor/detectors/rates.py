"""The learning rate: too high, where the loss is not finite, climbs or jumps; too low, where it
falls slowly and linearly; or outside the usual range.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from holdfast.core.labels import Label
from holdfast.core.records import Evidence, Floats, Snapshot
from holdfast.monitor import limits
from holdfast.monitor.evidence import follow_labels
from holdfast.monitor.history import History
from holdfast.monitor.remedies import remedies_for
from holdfast.monitor.symptom import Symptom, clip_confidence, difference_evidence, evidence_item
from holdfast.stats.paired_tests import Difference

TOO_HIGH = "the learning rate is too high"
BY_HIGH_RATE: tuple[Label, ...] = (
    "underfit",
    "overfit",
    "memorizing",
    "miscalibrated",
    "inconclusive",
)


def rate_high(history: History) -> Symptom | None:
    """``diverging``, or the cause of another label.

    ``diverging``: a loss is not finite; or the training loss is significantly above its first value
    by more than a tenth, or has lost more than half of what was gained, and a rise of that size was
    already there at the previous evaluation; or the validation loss is significantly above its best
    and the training loss got worse with it.

    As a cause: the peak rate is above the usual ones; the training loss rose significantly between
    evaluations, twice by more than a tenth or once by more than half; the gradient norm jumped to
    ten times its median so far; or the raw validation loss is 3.5 times that of the class
    frequencies, which requires far too large logits.
    """
    if history.first_non_finite is not None:
        return _broken(history.first_non_finite, history)
    if not history.comparable:
        return None
    climbed, symptoms = _climbed(history), _symptoms(history)
    if climbed is None and not symptoms:
        return None
    found = Symptom(
        because="the learning curves show that the learning rate is too high",
        cause=TOO_HIGH,
        blame=0.95,
        explains=BY_HIGH_RATE,
        evidence=symptoms,
        remedies=remedies_for("diverging", history),
    )
    if climbed is None:
        return found
    gap, than, since = climbed
    return replace(
        found,
        because=f"the training loss is {gap.value:.3f} above {than}",
        strength=clip_confidence(gap.above),
        label="diverging",
        blame=1.0,
        since_step=since,
        evidence=(difference_evidence("train_probe_rise", gap, history.last_step), *symptoms),
    )


def _broken(snapshot: Snapshot, history: History) -> Symptom:
    begins = snapshot.phase == "start"
    return Symptom(
        because="a loss is not finite before the first update"
        if begins
        else f"a loss at step {snapshot.step} is not finite",
        strength=1.0,
        label="diverging",
        cause="rows or weights that were invalid before training"
        if begins
        else f"{TOO_HIGH}, or the precision is too low",
        since_step=snapshot.step,
        evidence=(evidence_item("loss_not_a_number", 1.0, step=snapshot.step),),
        remedies=remedies_for("broken start" if begins else "diverging", history),
    )


def _climbed(history: History) -> tuple[Difference, str, int] | None:
    means = history.probe_means
    if len(means) < 2 or not np.isfinite(means).all():
        return None
    first, lowest = float(means[0]), float(means.min())
    small = limits.margin_of(lowest)
    since = history.steps[-2]
    start = history.gap(history.probe, -1, 0, limits.ALARM_LEVEL)
    if start.low > 0 and _stays(means, first + max(small, limits.ABOVE_START * first)):
        return start, "its first value", since
    best = history.gap(history.probe, -1, int(means.argmin()), limits.ALARM_LEVEL)
    back = max(small, limits.GAVE_BACK * (first - lowest))
    if best.low > 0 and _stays(means, lowest + back):
        return best, "its lowest value", since
    if history.has_validation and history.is_rising and history.probe_since_best.low > 0:
        than = "its value at the best step, and validation got worse too"
        return history.probe_since_best, than, history.steps[history.best + 1]
    return None


def _stays(means: Floats, level: float) -> bool:
    """Whether the last two means are above a level: one bad evaluation early in a run is common."""
    return len(means) > 2 and bool(np.all(means[-2:] > level))


def _symptoms(history: History) -> tuple[Evidence, ...]:
    signs = []
    usual = history.run_facts.usual_rates
    if usual is not None and history.highest_rate > usual[1]:
        signs.append(evidence_item("learning_rate", history.highest_rate, usual[0], usual[1]))
    bumps = _bumps(history)
    if len(bumps) > 1 or any(size > limits.BIG_BUMP for size in bumps):
        signs.append(
            evidence_item("rises_of_the_train_probe", float(len(bumps)), step=history.last_step)
        )
        signs.append(
            evidence_item("largest_rise_of_the_train_probe", max(bumps), step=history.last_step)
        )
    norms = [s.gradient_norm for s in history.snapshots if s.gradient_norm is not None]
    # The largest ratio of a gradient norm to the median of the norms before it, at least three.
    ratios = [
        norms[i] / max(float(np.median(norms[:i])), 1e-12)
        for i in range(3, len(norms))
        if math.isfinite(norms[i])
    ]
    jump = max(ratios, default=0.0)
    if jump > limits.JUMP:
        signs.append(evidence_item("gradient_norm_jump", jump, step=history.last_step))
    chance, loss = (
        history.chance,
        float(history.raw[:, -1].mean()) if history.has_validation else 0.0,
    )
    if chance and loss > limits.BLOWN * chance:
        name = "valid_loss_times_that_of_class_frequencies"
        signs.append(evidence_item(name, loss / chance, step=history.last_step))
    return tuple(signs)


def _bumps(history: History) -> list[float]:
    """The significant rises of the training loss between two evaluations, by a tenth or more, each
    as a share of the loss before."""
    means, bumps = history.probe_means, []
    for snapshot in range(1, len(means)):
        rise, before = float(means[snapshot] - means[snapshot - 1]), float(means[snapshot - 1])
        # A fixed margin in addition to the tenth: of a loss near 0 any tenth is noise.
        large = rise > limits.BUMP * before + limits.MARGIN
        if large and history.gap(history.probe, snapshot, snapshot - 1, limits.ALARM_LEVEL).low > 0:
            bumps.append(rise / max(before, 1e-9))
    return bumps


def nothing_learned(history: History) -> bool:
    """Whether the last training loss is not better, or hardly better, than that of the class
    frequencies. Those are of the validation rows: with a single class they say nothing about the
    training rows. A loss above them is no proof either where the predictions on validation rows
    follow their labels, as with a model trained on balanced classes."""
    chance, loss = history.chance, float(history.probe_means[-1])
    if not chance or not loss > limits.NOTHING_LEARNED_SHARE * chance:
        return False
    if loss <= chance or history.predictions is None or history.labels is None:
        return True
    return not follow_labels(history.predictions, history.labels)


TOO_LOW = "the learning rate is too low"
BY_LOW_RATE: tuple[Label, ...] = ("underfit", "learning", "healthy", "inconclusive")


def rate_low(history: History) -> Symptom | None:
    """A cause, without a label, where the training sample is not fitted yet and the peak rate is
    below the usual ones; or more than half of its first loss is left and it falls linearly in the
    sum of the learning rates: a run that learns shows a bend long before."""
    if not history.comparable or not history.probe.size or history.at_floor:
        return None
    if (history.probe[:, -1] < limits.FITTED).mean() >= limits.FLOOR_SHARE:
        return None
    usual, left = history.run_facts.usual_rates, left_over(history)
    signs: list[Evidence] = []
    if usual is not None and history.peak_rate < usual[0]:
        signs.append(evidence_item("learning_rate", history.peak_rate, usual[0], usual[1]))
    if left > limits.SLOW and straight(history):
        signs.append(evidence_item("train_probe_loss_left", left, step=history.last_step))
    if not signs:
        return None
    blame, distance = 0.6 + 0.2 * len(signs), history.snapshots[-1].distance
    if distance is not None:
        signs.append(evidence_item("distance_of_the_weights", distance, step=history.last_step))
    return Symptom(
        because="the training loss falls slowly and linearly",
        cause=TOO_LOW,
        blame=blame,
        explains=BY_LOW_RATE,
        evidence=tuple(signs),
        remedies=remedies_for("slow", history),
    )


def straight(history: History) -> bool:
    """Whether the training loss falls linearly in Σ rate × updates: the second half of that sum
    brought at least 60 % of what the first did, and both fell. Needs four evaluations."""
    means = history.probe_means
    # Σ rate × updates up to each evaluation, by the trapezoid rule.
    rates = np.nan_to_num(np.array([snapshot.learning_rate for snapshot in history.snapshots]))
    pieces = np.diff(np.array(history.steps)) * (rates[1:] + rates[:-1]) / 2
    clock = np.concatenate([[0.0], np.cumsum(pieces)])
    if len(means) < 4 or not clock[-1] > 0:
        return False
    middle = float(np.interp(clock[-1] / 2, clock, means))
    early, late = means[0] - middle, middle - means[-1]
    return bool(early > 0 and late >= limits.LINEAR * early)


def left_over(history: History) -> float:
    """The share of the first training loss that is left."""
    first = float(history.probe_means[0])
    return float(history.probe_means[-1]) / first if first > 0 else 0.0
