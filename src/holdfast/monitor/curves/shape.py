"""The shape of one scalar curve: where it was lowest, how far it has risen since, how noisy it is.

A curve is smoothed by a running median over 5 % of its points, at least three (one where there are
fewer than six points), cut short at the ends. Its *floor* is the lowest smoothed value; or the
lowest single point, raised by what choosing the lowest costs, where even that lies below (so a
minimum of one evaluation, as steep early courses have it, is not smoothed away). Its *rise* is the
median of the last window above the floor, provided that this lies before the last window.

Noise is read from second differences, which a straight slope leaves at zero: for independent noise
of standard deviation σ they have √6 σ, estimated by their median absolute value (1.4826 MAD). The
median of w points has about σ √(π / 2w). The lowest of k windows lies by chance alone about
√(2 ln k) such deviations below the curve (an upper bound on the expected least of k normal values),
so a rise is beyond doubt above that and two more; or where at least four points after the best rise
one after the other, which exchangeable points do once in 24. The points of one run are no
independent sample, so this is a yardstick and no test; a test needs the losses of single rows.

Two kinds of rise are none. A schedule that restarts lifts the loss again and again, and the loss
comes back: a rise must be 1.5 times the largest one that the curve has *recovered* from since half
of what it learned. And a rise that is one step and falls from there on is a *level shift* (a
restart of the rate, another scale of this loss alone; ``one_scale`` has that of both): only what
follows it is judged.

A run may be resumed with another scale of its loss: a changed label smoothing, a sum in place of a
mean, another number of accumulated batches. None of it changes the model, and all of it looks like
a rise (or hides one). Both losses step at the same look by the same factor, which no change of the
model does: overfitting moves validation alone, a collapse brings both to one level, so by different
factors, or to where they began. Before all else the factor is taken out (``one_scale``), and the
course judged as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from holdfast.core.curves import PERCENT_ABOVE, Curves, Series
from holdfast.core.records import Floats

WINDOW_SHARE = 0.05
SMOOTHED_FROM = 6
TAIL = 8
ENOUGH = 2.0
STEADY = 4
RECOVERED = 1.5  # times the largest rise that the curve came back from: below, it may come back too
BACK = 0.1  # of a rise is left when the curve has come back from it
STEP = 4.0  # deviations of a step that is noise alone, and
STEP_SHARE = 0.6  # of the rise: in one step


@dataclass(frozen=True, slots=True)
class CurveShape:
    """What was measured on a curve of ``cost`` [points], less is better, at ``at`` [points].

    ``smooth`` are running medians over ``window`` points, ``noise`` the standard deviation of one
    of them, ``low`` the position in these arrays of the lowest, ``best`` that of the lowest single
    point around it, ``floor`` the lowest cost. ``start`` is the highest of the first three points,
    ``recovered`` the largest rise that the curve came back from since half of what it learned.
    ``shifted_at`` is where a level shift was cut off: the arrays begin with it.
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
        """How far the end lies above the floor; 0 while the floor is at the end."""
        turned = self.low < len(self.cost) - self.window
        return max(0.0, self.end - self.floor) if turned else 0.0

    @property
    def rise_share(self) -> float:
        """The rise as a share of the floor."""
        return self.rise / self.floor if self.floor > 0 else math.inf if self.rise else 0.0

    @property
    def given_back(self) -> float:
        """The rise as a share of what had been learned from the start to the floor; more than 1
        where the end is worse than the start."""
        learned_loss = self.start - self.floor
        return self.rise / learned_loss if learned_loss > 0 else math.inf if self.rise else 0.0

    @property
    def doubt(self) -> float:
        """The rise that noise alone may show: the lowest of k windows, and two deviations."""
        windows = max(1.0, len(self.cost) / self.window)
        return self.noise * (math.sqrt(2 * math.log(windows)) + ENOUGH)

    @property
    def comes_back(self) -> bool:
        """Whether the curve has come back from a rise of about this size before."""
        return self.rise <= RECOVERED * self.recovered

    @property
    def beyond_doubt(self) -> bool:
        """Whether the rise is more than noise, and than the curve has come back from: by its size,
        or because every point since the best is worse than the one before."""
        after = self.cost[self.best + 1 :]
        steady = len(after) >= STEADY and bool(np.all(np.diff(after) > 0))
        return not self.comes_back and (self.rise > self.doubt or (self.rise > 0 and steady))

    @property
    def falls_throughout(self) -> bool:
        """Whether each of at least four points is better than the one before."""
        return len(self.cost) >= STEADY and bool(np.all(np.diff(self.cost) < 0))

    @property
    def since(self) -> float:
        """Where the rise begins: the first point after the best."""
        return float(self.at[min(self.best + 1, len(self.at) - 1)])

    def value_at(self, place: float) -> float:
        """The smoothed cost at a position, on a straight line between points."""
        return float(np.interp(place, self.at, self.smooth))

    def cost_at(self, place: float) -> float:
        """The single point last logged at a position or before it, the first where none was."""
        return float(self.cost[max(0, int(np.searchsorted(self.at, place, side="right")) - 1)])

    @property
    def wobble(self) -> float:
        """The standard deviation of a single point."""
        # ``noise`` is that of a median over the window; this undoes its gain.
        return self.noise / min(1.0, math.sqrt(math.pi / (2 * self.window)))

    def fall_over(self, share: float) -> float:
        """How far the curve fell over ``share`` of its points, up to its last window."""
        last = len(self.cost) - 1
        before = last - self.window // 2 - max(1, round(share * last))
        return float(self.smooth[max(0, before)] - self.end)


def shape_of(series: Series, shifts: bool = True) -> CurveShape | None:
    """The shape of the finite points of a series; ``None`` with fewer than two. Of a curve with a
    level shift, that of the points from the shift on, where there are at least two (``shifts``:
    false for a metric, whose scale no resume changes)."""
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
    # The least of many noisy points lies below the curve by luck: that much is added back.
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
    """The points that noise is read from: since the lowest, and eight at least."""
    return cost[min(low, max(0, len(cost) - TAIL)) :]


def _largest_recovered(smooth: Floats, half: float) -> float:
    """The largest rise above the lowest so far from which the curve came back, to within a tenth of
    it, counted from the first point at or below ``half``; 0 where there is none."""
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

    One of the three largest steps of the curve is such, if it is more than four deviations of a
    step that is noise alone, and at least three fifths of the whole way up from the lowest point
    before; if the next point keeps half of it (else it is a spike); and if from there on the curve
    falls, by a tenth of the step and more than such a deviation, without coming down to the lowest
    point before (else it came back, and nothing needs to be cut off).
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
    """The values as something of which less is better, above 0 where shares need it: 1 − v for a
    metric in [0, 1], 100 − v in per cent. Values without such a scale (rewards, losses below 0)
    are shifted so that the best lies one range of the curve above 0."""
    values = series.values
    if series.higher_is_better and values.min() >= 0 and values.max() <= PERCENT_ABOVE:
        # A mean of float32 may be a hair above 1.
        return np.maximum(1 - values, 0.0)
    if series.higher_is_better and values.min() >= 0 and values.max() <= 100:
        return np.asarray(100 - values)
    if series.higher_is_better or values.min() < 0:
        worse = -values if series.higher_is_better else values
        # One range above 0, so that shares of the floor mean shares of what the curve moved.
        return np.asarray(worse - worse.min() + np.ptp(values))
    return values


def window_for(points: int) -> int:
    """An odd number of points: 5 % of them, at least 3; 1 below six points."""
    if points < SMOOTHED_FROM:
        return 1
    return max(3, round(WINDOW_SHARE * points) // 2 * 2 + 1)


def running_median(values: Floats, window: int) -> Floats:
    """The median of the ``window`` points around each, fewer at the ends."""
    half, last = window // 2, len(values) - 1
    # No window fits in whole: each is cut short.
    if last < window:
        return np.array(
            [np.median(values[max(0, i - half) : i + half + 1]) for i in range(last + 1)]
        )
    middle = np.median(np.lib.stride_tricks.sliding_window_view(values, window), axis=1)
    first = [np.median(values[: i + half + 1]) for i in range(half)]
    ends = [np.median(values[i - half :]) for i in range(last - half + 1, last + 1)]
    return np.concatenate([first, middle, ends])


def noise_of(values: Floats) -> float:
    """The standard deviation of single points: the smaller of what second differences and a
    straight line through all points leave, as a bend widens the one and jumps from side to side
    the other. 0 with fewer than three points."""
    if len(values) < 3:
        return 0.0
    bends = 1.4826 * float(np.median(np.abs(np.diff(values, 2)))) / math.sqrt(6)
    if len(values) < SMOOTHED_FROM:
        return bends
    places = np.arange(len(values))
    left = values - np.polyval(np.polyfit(places, values, 1), places)
    return min(bends, math.sqrt(float(np.sum(left**2)) / (len(values) - 2)))


FEWEST = 8  # points of each series
LEAST = 0.14  # logarithm of the factor: 15 %
ALIKE, SLACK = (
    0.15,
    0.06,
)  # the factors' logarithms differ by this share, or by as much as noise may
CANDIDATES = 3  # steps that stand out most from those around
AROUND = 3  # points before and after that the factor is read from
COLLAPSED = 0.9  # of where training began, of the first points after the step, of the other set


@dataclass(frozen=True, slots=True)
class ScaleChange:
    """Where both losses step, and by which factor."""

    at: float
    factor: float


def one_scale(log: Curves) -> tuple[Curves, ScaleChange | None]:
    """The log with both losses in the scale that they began with, and what was taken out; as it is
    where there is no such place (one only is looked for), or no two positive losses of eight
    points."""
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
    """Whether training steps by the same factor where validation steps at ``at``."""
    other = int(np.searchsorted(train.positions, valid.positions[at - 1], side="right"))
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
    return ScaleChange(float(valid.positions[at]), math.exp((ours + theirs) / 2))


def _factor(logs: Floats, at: int) -> float:
    """The step at ``at`` by least squares: one slope and two levels through the points around."""
    first, last = max(0, at - AROUND), min(len(logs), at + AROUND)
    places = np.arange(first, last)
    design = np.stack([np.ones(len(places)), places, places >= at], axis=1).astype(np.float64)
    return float(np.linalg.lstsq(design, logs[first:last], rcond=None)[0][2])
