"""The shape of one scalar curve: where it was lowest, how far it has risen since, how noisy it is.

A curve is smoothed by a running median over 5 % of its points, at least three (one where there are
fewer than six points), truncated at the ends. Its *floor* is the lowest smoothed value. Where even
the lowest single point, corrected for selecting the lowest, is below that, this point is the floor;
so a minimum of one evaluation, as in steep early curves, is not smoothed away. Its *rise* is the
median of the last window minus the floor, if the floor is before the last window.

Noise is estimated from second differences, which a linear trend leaves at zero: for independent
noise of standard deviation σ they have √6 σ, estimated by their median absolute value (1.4826 MAD).
The median of w points has about σ √(π / 2w). The lowest of k windows is by chance about √(2 ln k)
such deviations below the curve (an upper bound on the expected minimum of k normal values). So a
rise counts as more than noise above that plus two deviations; or where at least four points after
the best rise one after the other, which exchangeable points do once in 24. The points of one run
are no independent sample, so this is a heuristic and no test; a test needs row-level losses.

Two kinds of rise do not count. With a schedule that restarts, the loss rises again and again and
recovers: a rise must be 1.5 times the largest one that the curve has *recovered* from since half of
what it learned. And a rise in one step with a fall from there on is a *level shift* (a restart of
the learning rate, or another scale of this loss only; ``one_scale`` handles that of both): only the
points after it are judged.

A run may be resumed with another scale of its loss: another label smoothing, a sum in place of a
mean, another number of accumulated batches. None of this changes the model, and all of it looks
like a rise (or hides one). Both losses step at the same evaluation by the same factor, which no
change of the model does: overfitting moves only the validation loss; a collapse brings both to one
level, so by different factors, or to their first values. The factor is removed before everything
else (``one_scale``), and the curve is judged in one piece.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from holdfast.core.curves import PERCENT_ABOVE, Curves, Series
from holdfast.core.records import Floats
from holdfast.stats.series import SMOOTHED_FROM, noise_of

QUARTER = 0.25
WINDOW_SHARE = 0.05
TAIL = 8
ENOUGH = 2.0
STEADY = 4
RECOVERED = 1.5  # times the largest rise that the curve recovered from: a smaller one may too
BACK = 0.1  # of a rise is left when the curve has recovered from it
STEP = 4.0  # standard deviations of a step that is noise only, and
STEP_SHARE = 0.6  # of the rise: in one step


@dataclass(frozen=True, slots=True)
class CurveShape:
    """Measurements of a curve of ``cost`` [points], lower is better, at ``at`` [points].

    ``smooth`` is the running median over ``window`` points, and ``noise`` the standard deviation of
    one of its values. ``low`` is the index of the lowest smoothed value, ``best`` that of the
    lowest single point near it, ``floor`` the lowest cost. ``start`` is the highest of the first
    three points, ``recovered`` the largest rise that the curve recovered from since half of what it
    learned. ``shifted_at`` is the position where a level shift was cut off: the arrays begin there.
    """

    at: Floats
    cost: Floats
    smooth: Floats
    window: int
    noise: float
    low: int
    best: int
    start: float
    floor: float
    recovered: float
    shifted_at: float | None = None

    @property
    def end(self) -> float:
        """The median of the last window."""
        return float(np.median(self.cost[-self.window :]))

    @property
    def rise(self) -> float:
        """How far the end is above the floor; 0 while the floor is at the end."""
        return max(0.0, self.end - self.floor) if self.is_past_floor else 0.0

    @property
    def is_past_floor(self) -> bool:
        """Whether the lowest smoothed value is before the last window."""
        return self.low < len(self.cost) - self.window

    @property
    def rise_share(self) -> float:
        """The rise as a share of the floor."""
        return self.rise / self.floor if self.floor > 0 else math.inf if self.rise else 0.0

    @property
    def given_back(self) -> float:
        """The rise as a share of what was learned from the start to the floor; above 1 where the
        end is worse than the start."""
        learned_loss = self.start - self.floor
        return self.rise / learned_loss if learned_loss > 0 else math.inf if self.rise else 0.0

    @property
    def doubt(self) -> float:
        """The rise that noise may cause: selecting the lowest of k windows, plus two deviations."""
        windows = max(1.0, len(self.cost) / self.window)
        return self.noise * (math.sqrt(2 * math.log(windows)) + ENOUGH)

    @property
    def comes_back(self) -> bool:
        """Whether the curve has recovered from a rise of about this size before."""
        return self.rise <= RECOVERED * self.recovered

    @property
    def beyond_doubt(self) -> bool:
        """Whether the rise exceeds both the noise and the rises that the curve recovered from: by
        its size, or because every point since the best is worse than the one before."""
        after = self.cost[self.best + 1 :]
        steady = len(after) >= STEADY and bool(np.all(np.diff(after) > 0))
        return not self.comes_back and (self.rise > self.doubt or (self.rise > 0 and steady))

    @property
    def falls_throughout(self) -> bool:
        """Whether each of at least four points is better than the one before."""
        return len(self.cost) >= STEADY and bool(np.all(np.diff(self.cost) < 0))

    @property
    def since(self) -> float:
        """The position where the rise begins: the first point after the best."""
        return float(self.at[min(self.best + 1, len(self.at) - 1)])

    def value_at(self, place: float) -> float:
        """The smoothed cost at a position, interpolated linearly between points."""
        return float(np.interp(place, self.at, self.smooth))

    def cost_at(self, place: float) -> float:
        """The last point logged at or before a position; the first point where there is none."""
        return float(self.cost[max(0, int(np.searchsorted(self.at, place, side="right")) - 1)])

    @property
    def wobble(self) -> float:
        """The standard deviation of a single point."""
        # ``noise`` is that of a median over the window; this reverses its reduction.
        return self.noise / min(1.0, math.sqrt(math.pi / (2 * self.window)))

    @property
    def late_fall(self) -> float:
        """How far the curve fell over the last quarter of its points, up to its last window."""
        last = len(self.cost) - 1
        before = last - self.window // 2 - max(1, round(QUARTER * last))
        return float(self.smooth[max(0, before)] - self.end)


def shape_of(series: Series, shifts: bool = True) -> CurveShape | None:
    """The shape of the finite points of a series; ``None`` with fewer than two. After a level shift
    only the points from the shift on are used, where there are at least two. ``shifts`` is false
    for a metric, whose scale does not change on resume."""
    known = series.finite
    if len(known) < 2:
        return None
    cost = costs(known)
    cut = _level_shift(cost) if shifts else None
    if cut is None or len(cost) - cut < 2:
        return _shape(known.positions, cost)
    return replace(
        _shape(known.positions[cut:], cost[cut:]), shifted_at=float(known.positions[cut])
    )


def _shape(at: Floats, cost: Floats) -> CurveShape:
    window = window_for(len(cost))
    smooth = running_median(cost, window)
    low = int(np.argmin(smooth))
    around = slice(max(0, low - window // 2), low + window // 2 + 1)
    best = around.start + int(np.argmin(cost[around]))
    single = int(np.argmin(cost))
    chance = math.sqrt(2 * math.log(max(1, len(cost))))
    # The lowest of many noisy points is below the curve by chance: that amount is added back.
    raised = float(cost[single]) + chance * noise_of(_tail(cost, single))
    floor = float(smooth[low])
    if raised < floor:
        low = best = single
        floor = raised
    noise = noise_of(_tail(cost, low)) * min(1.0, math.sqrt(math.pi / (2 * window)))
    start = float(cost[:3].max())
    recovered = _largest_recovered(smooth, (start + floor) / 2)
    return CurveShape(at, cost, smooth, window, noise, low, best, start, floor, recovered)


def _tail(cost: Floats, low: int) -> Floats:
    """The points that the noise is estimated from: those since the lowest, and at least eight."""
    return cost[min(low, max(0, len(cost) - TAIL)) :]


def _largest_recovered(smooth: Floats, half: float) -> float:
    """The largest rise above the lowest value so far from which the curve recovered, to within a
    tenth of it, counted from the first point at or below ``half``; 0 where there is none."""
    learned_loss = np.flatnonzero(smooth <= half)
    largest = 0.0
    lowest = peak = float(smooth[learned_loss[0]]) if len(learned_loss) else math.inf
    for value in smooth[learned_loss[0] :] if len(learned_loss) else ():
        peak = max(peak, float(value))
        if value <= lowest + BACK * (peak - lowest):
            largest = max(largest, peak - lowest)
            lowest = peak = min(lowest, float(value))
    return largest


def _level_shift(cost: Floats) -> int | None:
    """The first point after a rise that is one step and then falls; ``None`` without one.

    One of the three largest steps of the curve is a level shift where all of these hold. It is
    larger than four standard deviations of a step that is noise only, and at least three fifths of
    the rise from the lowest point before. The next point keeps half of it (else it is a spike).
    From there on the curve falls by a tenth of the step and by more than such a deviation, without
    reaching the lowest point before (else it recovered, and nothing needs to be cut off).
    """
    steps = np.diff(cost)
    if len(steps) < STEADY - 1:
        return None
    usual = math.sqrt(2) * noise_of(cost)
    for at in (int(place) + 1 for place in np.argsort(-steps)[:3]):
        step, before, after = float(steps[at - 1]), float(cost[:at].min()), cost[at:]
        alone = step <= STEP * usual or step < STEP_SHARE * (float(after[0]) - before)
        if alone or len(after) < 2:
            continue
        few = window_for(len(after))
        fall = float(np.median(after[:few]) - np.median(after[-few:]))
        stays = float(after[1]) >= float(cost[at - 1]) + step / 2
        falls = fall > max(usual, BACK * step) and float(after.max()) <= float(after[0]) + usual
        if stays and falls and float(after.min()) > before:
            return at
    return None


def costs(series: Series) -> Floats:
    """The values as a cost where lower is better, above 0 where shares of it are needed: 1 − v for
    a metric in [0, 1], 100 − v in per cent. Values without such a scale (rewards, losses below 0)
    are shifted so that the best is one range of the curve above 0."""
    values = series.values
    if series.higher_is_better and values.min() >= 0 and values.max() <= PERCENT_ABOVE:
        # A mean in float32 may be slightly above 1.
        return np.maximum(1 - values, 0.0)
    if series.higher_is_better and values.min() >= 0 and values.max() <= 100:
        return np.asarray(100 - values)
    if series.higher_is_better or values.min() < 0:
        worse = -values if series.higher_is_better else values
        # One range above 0, so that shares of the floor are shares of the range of the curve.
        return np.asarray(worse - worse.min() + np.ptp(values))
    return values


def window_for(points: int) -> int:
    """An odd number of points: 5 % of them, at least 3; 1 with fewer than six points."""
    if points < SMOOTHED_FROM:
        return 1
    return max(3, round(WINDOW_SHARE * points) // 2 * 2 + 1)


def running_median(values: Floats, window: int) -> Floats:
    """The median of the ``window`` points around each point; fewer points at the ends."""
    half, last = window // 2, len(values) - 1
    # No full window fits: each is truncated.
    if last < window:
        return np.array(
            [np.median(values[max(0, i - half) : i + half + 1]) for i in range(last + 1)]
        )
    middle = np.median(np.lib.stride_tricks.sliding_window_view(values, window), axis=1)
    first = [np.median(values[: i + half + 1]) for i in range(half)]
    ends = [np.median(values[i - half :]) for i in range(last - half + 1, last + 1)]
    return np.concatenate([first, middle, ends])


FEWEST = 8  # points of each series
LEAST = 0.14  # logarithm of the factor: 15 %
ALIKE, SLACK = (
    0.15,
    0.06,
)  # the factors' logarithms differ by this share, or by as much as noise may
CANDIDATES = 3  # steps that deviate most from the steps around them
AROUND = 3  # points before and after that the factor is estimated from
COLLAPSED = 0.9  # of where training began, of the first points after the step, of the other set


@dataclass(frozen=True, slots=True)
class ScaleChange:
    """The position where both losses change their scale, and by which factor."""

    at: float
    factor: float


def one_scale(log: Curves) -> tuple[Curves, ScaleChange | None]:
    """The log with both losses in their first scale, and the change that was removed. The log is
    unchanged where there is no such position (only one is searched for), or without two positive
    losses of eight points."""
    if (
        log.valid is None
        or log.train is None
        or log.valid.higher_is_better
        or log.train.higher_is_better
    ):
        return log, None
    valid, train = log.valid.finite, log.train.finite
    if min(len(valid), len(train)) < FEWEST or min(valid.values.min(), train.values.min()) <= 0:
        return log, None
    # A factor is a step of the logarithm, equally large at any level of the loss.
    logs = np.log(valid.values)
    steps = np.diff(logs)
    # Relative to its neighbours: the steep first steps of every run are large and no scale change.
    around = [np.median(steps[max(0, i - AROUND) : i + AROUND + 1]) for i in range(len(steps))]
    for step in map(int, np.argsort(-np.abs(steps - around))[:CANDIDATES]):
        before = steps[max(0, step - AROUND) : step]
        # A step down of less than twice the steps before is one of the steep first ones of a run.
        begins = steps[step] < 0 and (not len(before) or steps[step] > 2 * before.min())
        if begins or not 2 <= step + 1 <= len(valid) - 2:
            continue
        if (scaled := _same(valid, train, logs, step + 1)) is not None:
            back = [
                replace(
                    one,
                    values=one.values / np.where(one.positions >= scaled.at, scaled.factor, 1.0),
                )
                for one in (log.valid, log.train)
            ]
            return replace(log, valid=back[0], train=back[1]), scaled
    return log, None


def _same(valid: Series, train: Series, logs: Floats, at: int) -> ScaleChange | None:
    """The scale change at ``at``, if training steps by the same factor where validation does."""
    other = int(np.searchsorted(train.positions, valid.positions[at - 1], side="right"))
    if not 2 <= other <= len(train) - 2:
        return None
    their_logs = np.log(train.values)
    ours, theirs = _factor(logs, at), _factor(their_logs, other)
    # A step is the difference of two points, which adds their variances.
    noise = math.sqrt(2) * max(noise_of(logs), noise_of(their_logs))
    if abs(ours) <= max(LEAST, STEP * noise) or abs(ours - theirs) > max(SLACK, ALIKE * abs(ours)):
        return None
    # Whether from the step on the training loss is back at its first value and no longer falls, and
    # the validation loss is at the same level.
    after, began = train.values[other:], train.values[:AROUND].max()
    level = float(np.median(after))
    back = level >= COLLAPSED * began
    flat = np.median(after[-AROUND:]) > COLLAPSED * np.median(after[:AROUND])
    alike = abs(float(np.median(valid.values[at:])) / level - 1) < 1 - COLLAPSED
    if ours > 0 and back and flat and alike:
        return None
    return ScaleChange(float(valid.positions[at]), math.exp((ours + theirs) / 2))


def _factor(logs: Floats, at: int) -> float:
    """The step at ``at`` by least squares: one slope and two levels through nearby points."""
    first, last = max(0, at - AROUND), min(len(logs), at + AROUND)
    places = np.arange(first, last)
    design = np.stack([np.ones(len(places)), places, places >= at], axis=1).astype(np.float64)
    return float(np.linalg.lstsq(design, logs[first:last], rcond=None)[0][2])
