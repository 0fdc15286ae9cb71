"""Noisy labels: answers that hold elsewhere contradict their labels here.

A hard row leaves a model in doubt; a wrong label contradicts it where it is sure, and where rows it
is as sure about are right. Being wrong from ignorance says nothing against a label.
"""

from __future__ import annotations

import numpy as np

from holdfast.core.records import Floats, softmax
from holdfast.core.run_facts import LabelNoise
from holdfast.monitor import limits
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.detectors.overfit import is_overfit
from holdfast.monitor.history import History
from holdfast.monitor.remedies import remedies_for
from holdfast.monitor.symptom import Symptom, item
from holdfast.stats.intervals import wilson
from holdfast.stats.lapse import lapse_rate

CAUSE = "wrong labels"
LEAST = 40


def noisy_labels(history: History) -> Symptom | None:
    """``noisy_labels`` where the whole 90 % interval of the share of wrong labels lies above 5 %,
    by answers that are right about more rows than the commonest class is.

    The share is the lapse rate (``stats.lapse``) of a linear probe on the untouched model, over all
    labelled training and validation rows, each answered by a fit that had not seen it. Where there
    was no probe it is that of the run's own answers on the validation rows: the probabilities
    averaged over the later half of the looks up to the best one. Temperature is fitted with it, so
    an overfitted model, sure and often wrong, is in doubt and says nothing.

    Answers near that baseline are ignorance, whatever their interval says: of the rows that the
    commonest class gets wrong they must get a fifth right, beyond chance. (A small net with random
    weights that was right about 26 % of pictures of ten classes gave 4 to 36 % of wrong labels.)

    An interval that holds both 5 and 15 % tells nothing and stays silent; a run that still gets
    better is left alone, as are fewer than 40 rows. Of a run that is plainly overfit too the label
    is given only where the whole interval lies above 10 %: fewer wrong labels are its cause.
    """
    if not history.enough or (not history.final and history.best > len(history.snapshots) - 3):
        return None
    probe = history.run_facts.label_noise
    noise, whose = (probe, "a linear probe") if probe else (_by_own_answers(history), "the run")
    if noise is None or not telling(noise):
        return None
    overfitted = is_overfit(history) or (history.at_floor and history.far_behind)
    return Symptom(
        because=f"about {noise.rate:.0%} of the labels ({noise.low:.0%} to {noise.high:.0%}) "
        f"contradict {whose}, whose accuracy is {noise.right:.0%} on {noise.n:,} rows it was not "
        f"fitted on (majority class {noise.base:.0%})",
        strength=0.5 + limits.WRONG_LEVEL / 2,
        label=None if noise.low < limits.MANY_WRONG and overfitted else "noisy_labels",
        cause=CAUSE,
        blame=0.9,
        explains=("overfit", "memorizing"),
        evidence=(
            item("share_of_wrong_labels", noise.rate, noise.low, noise.high),
            item("labels_answered_right", noise.right, *wilson(noise.right * noise.n, noise.n)),
            item("share_of_the_commonest_class", noise.base),
        ),
        remedies=remedies_for("noisy labels"),
    )


def telling(noise: LabelNoise) -> bool:
    """Whether wrong labels are beyond doubt, by answers that know something."""
    if noise.n < LEAST:
        return False
    beyond_chance = wilson(noise.right * noise.n, noise.n)[0] > noise.base
    knows = noise.right - noise.base >= limits.KNOWS * (1 - noise.base)
    return beyond_chance and knows and noise.low > limits.WRONG_LABELS


def _by_own_answers(history: History) -> LabelNoise | None:
    """What the run's own answers on the validation rows say; ``None`` without logits of classes, or
    where validation was never better than the class frequencies."""
    if history.labels is None or len(history.labels) < LEAST or not history.refined:
        return None
    # Several states, averaged, since one state's sureness is partly its own noise: the later half
    # of the looks up to the best, without the first of all and those at which validation was no
    # better than the class frequencies.
    means, chance = history.valid.mean(axis=0), history.chance or 0.0
    first = max(1, (history.best + 1) // 2)
    looks = [k for k in range(first, history.best + 1) if means[k] < limits.LEARNED * chance]
    if not looks:
        return None
    answers: list[Floats] = []
    for snapshot in (history.snapshots[k] for k in looks):
        # Probabilities after the best temperature [n, classes].
        temperature = snapshot.temperature if snapshot.temperature > 0 else 1.0
        scores = np.asarray(snapshot.valid_logits, dtype=np.float64) / temperature
        answers.append(softmax(scores))
    mean = np.mean(answers, axis=0)
    base = float(np.bincount(history.labels).max() / len(history.labels))
    right = float((mean.argmax(axis=1) == history.labels).mean())
    if right <= base:
        return None
    # A float32 softmax may give exactly 0, which has no logarithm.
    scores, level = np.log(np.maximum(mean, 1e-12)), limits.OWN_WRONG_LEVEL
    found = lapse_rate(scores, history.labels, level=level)
    return LabelNoise(found.rate, found.low, found.high, right, base, found.n)


DETECTORS.add("noisy_labels", noisy_labels)
