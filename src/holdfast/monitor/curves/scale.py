"""A run resumed with another scale of its loss: both losses step by one factor at one place.

A changed label smoothing, a sum in place of a mean, another number of accumulated batches: none of
it changes the model, and all of it looks like a rise (or hides one). Both losses step at the same
look by the same factor, which no change of the model does: overfitting moves validation alone, a
collapse brings both to one level, so by different factors, or to where they began. The factor is
taken out, and the course judged as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from holdfast.core.curves import Curves, Series
from holdfast.core.records import Floats
from holdfast.monitor.curves.shape import noise_of

FEWEST = 8  # points of each series
LEAST = 0.14  # logarithm of the factor: 15 %
STEP = 4.0  # deviations of a step that is noise alone
ALIKE, SLACK = (
    0.15,
    0.06,
)  # the factors' logarithms differ by this share, or by as much as noise may
CANDIDATES = 3  # steps that stand out most from those around
AROUND = 3  # points before and after that the factor is read from
COLLAPSED = 0.9  # of where training began, of the first points after the step, of the other set


@dataclass(frozen=True, slots=True)
class Rescaled:
    """Where both losses step, and by which factor."""

    at: float
    factor: float


def one_scale(log: Curves) -> tuple[Curves, Rescaled | None]:
    """The log with both losses in the scale that they began with, and what was taken out; as it is
    where there is no such place (one only is looked for), or no two positive losses of eight
    points."""
    if log.valid is None or log.train is None or log.valid.rises or log.train.rises:
        return log, None
    valid, train = log.valid.finite, log.train.finite
    if min(len(valid), len(train)) < FEWEST or min(valid.values.min(), train.values.min()) <= 0:
        return log, None
    # A factor is a step of the logarithm, as high at any level of the loss.
    logs = np.log(valid.values)
    steps = np.diff(logs)
    # Against its neighbours: the steep first steps of every run are large and no step of the scale.
    around = [np.median(steps[max(0, i - AROUND) : i + AROUND + 1]) for i in range(len(steps))]
    for step in map(int, np.argsort(-np.abs(steps - around))[:CANDIDATES]):
        before = steps[max(0, step - AROUND) : step]
        # A step down that is less than twice those before is one of the steep first ones of a run.
        begins = steps[step] < 0 and (not len(before) or steps[step] > 2 * before.min())
        if begins or not 2 <= step + 1 <= len(valid) - 2:
            continue
        if (found := _same(valid, train, logs, step + 1)) is not None:
            back = [
                replace(one, values=one.values / np.where(one.at >= found.at, found.factor, 1.0))
                for one in (log.valid, log.train)
            ]
            return replace(log, valid=back[0], train=back[1]), found
    return log, None


def _same(valid: Series, train: Series, logs: Floats, at: int) -> Rescaled | None:
    """Whether training steps by the same factor where validation steps at ``at``."""
    other = int(np.searchsorted(train.at, valid.at[at - 1], side="right"))
    if not 2 <= other <= len(train) - 2:
        return None
    their_logs = np.log(train.values)
    ours, theirs = _factor(logs, at), _factor(their_logs, other)
    # A step is the difference of two points.
    noise = math.sqrt(2) * max(noise_of(logs), noise_of(their_logs))
    if abs(ours) <= max(LEAST, STEP * noise) or abs(ours - theirs) > max(SLACK, ALIKE * abs(ours)):
        return None
    # Whether from the step on training is back where it began and learns nothing, and validation
    # stands on the same level.
    after, began = train.values[other:], train.values[:AROUND].max()
    level = float(np.median(after))
    back = level >= COLLAPSED * began
    flat = np.median(after[-AROUND:]) > COLLAPSED * np.median(after[:AROUND])
    alike = abs(float(np.median(valid.values[at:])) / level - 1) < 1 - COLLAPSED
    if ours > 0 and back and flat and alike:
        return None
    return Rescaled(float(valid.at[at]), math.exp((ours + theirs) / 2))


def _factor(logs: Floats, at: int) -> float:
    """The step at ``at`` by least squares: one slope and two levels through the points around."""
    first, last = max(0, at - AROUND), min(len(logs), at + AROUND)
    places = np.arange(first, last)
    design = np.stack([np.ones(len(places)), places, places >= at], axis=1).astype(np.float64)
    return float(np.linalg.lstsq(design, logs[first:last], rcond=None)[0][2])
