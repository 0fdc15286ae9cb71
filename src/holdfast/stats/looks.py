"""Has a run risen above its best state, when it is looked at again and again on the same rows?

The rows are fixed and the model changes. Two things go wrong with a plain paired test of the last
state against the best: the best is the luckiest of many (the winner's curse), and a test at every
look gets many chances to be wrong. Here the rows are resampled jointly over the whole path, the
best is chosen anew in each resample, and the error is spent over the planned looks.

Siblings: ``path.rise_from_best`` tests one look by itself, so its p-value grows too small when it
is read at every look; this one holds its level over the whole run and is the more powerful. Where
the *rows* arrive and the model stays, use ``streams``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints
from holdfast.stats.path import atoms_by_look

POWER = 3.0
LEVELS = np.geomspace(0.0005, 1.0, 48)


@dataclass(frozen=True, slots=True)
class Look:
    """What the looks so far say about a rise above the best.

    best : position of the look with the smallest mean loss, the first of equals.
    value, low, high : the rise of the last look above the best in the loss's unit, and its
        interval, corrected for the choice of the best; it holds at this look, not at all at once.
    t, boundary : the largest rise of the last look above any earlier one ÷ its standard error, and
        what it has to exceed at this look (∞ where nothing may be spent yet).
    p_value : the smallest error level (on a grid of steps of 18 %) at which an alarm would have
        been raised at any look so far. ``p_value`` ≤ alpha exactly where there is an alarm.
    spent : the share of all error that may be spent up to now, at most alpha.
    alarm : the position of the first look above its boundary; None while there is none. A later
        recovery does not take it back.
    since : the first look after the best one as it stood at the alarm; None without one.
    n : rows, or groups where there are groups.
    """

    best: int
    value: float
    low: float
    high: float
    t: float
    boundary: float
    p_value: float
    spent: float
    alarm: int | None
    since: int | None
    n: int


def look(
    losses: Floats, planned: int, *, seed: np.random.Generator, groups: Ints | None = None,
    alpha: float = 0.05, times: Floats | None = None, power: float = POWER, level: float = 0.95,
    resamples: int = 2000,
) -> Look:  # fmt: skip
    """Test, at every look of a run, whether validation has risen above its best.

    With means m_k over the n rows, the statistic of look k is T_k = max over i < k of
    (m_k − m_i) ÷ se_ik, se that of the paired difference. The null: the mean falls to its best
    and then stays, while the losses of single rows go on moving. Its worst case is a path that is
    flat throughout, whose law is drawn with the covariance of the looks: normal means over a
    common √(χ² ÷ (n − 1)), that is multivariate t, the best anew in each draw. The boundary b_k is
    where P(T_j > b_j for a j ≤ k) = alpha · (time_k)^power, the error spent (Lan and DeMets 1983;
    Kim and DeMets 1987), found among the draws that crossed no earlier boundary. It uses the
    correlation of looks and needs no covariance of looks to come. Equal seeds give the same
    boundary for a look when further looks follow: test with one seed throughout a run.

    Parameters
    ----------
    losses : [n, looks so far], the same rows at each look, oldest look first.
    planned : how many looks the whole run will have. More looks than planned: a ``Defect``.
    alpha : the chance of an alarm at any look of a run that never rises.
    groups : [n], whole numbers 0 … G−1; groups are then what is drawn.
    times : [looks so far], in (0, 1] and rising: the share of the run done at each look, when looks
        are not evenly spaced; by default position ÷ planned. Must not depend on the losses.
    power : how late error is spent; 1 evenly, 3 close to O'Brien and Fleming's boundary.
    level : of the interval. Its lower limit holds for every choice of the best (max over i of
        m_k − m_i − c se_ik with c from the law of T_k, never below 0); the upper one is the largest
        upper limit of any earlier look.

    The normal law replaces resampled rows: in simulated runs of 50 rows with heavy tails it keeps
    the level. It shares one weakness with every t test: differences of losses with a long tail
    *downwards* (a few rows improve very much while the others rise) raise false alarms.

    Every look counts in the maximum, so a best that stands alone (a steep fall, many rows, many
    looks) costs power: ``benchmarks/RESULTS.md`` has the cells.

    Fewer than two looks, two rows or two groups, or a loss that is not finite: no alarm, NaN
    where a number cannot be told.
    """
    times = _times(losses.shape[1], planned, times)
    _check(alpha, power)
    atoms = atoms_by_look(losses, groups)
    n, looks = atoms.shape
    finite = bool(np.isfinite(atoms).all())
    means = atoms.mean(axis=0) if n else np.full(looks, math.nan)
    best = int(np.argmin(means)) if looks and finite and n else 0
    if n < 2 or looks < 2 or not finite:
        value = float(means[-1] - means[best]) if looks else math.nan
        nothing = (math.nan,) * 4
        return Look(best, value, *nothing, math.nan, alpha * _last(times, power), None, None, n)
    roots = _roots(atoms)
    errors = _errors(roots, n, float(np.linalg.norm(atoms, axis=0).max()))
    draws = _draws(roots, errors, n, seed, resamples)
    observed = _observed(means, errors)
    boundary = boundary_of(draws, alpha * times**power)
    alarm = _alarm(observed, boundary)
    low, high = _interval(means, errors[-1], draws[-1], n, level)
    return Look(
        best, float(means[-1] - means[best]), low, high, float(observed[-1]), float(boundary[-1]),
        _p_value(observed, draws, times**power, alpha, alarm is not None),
        alpha * _last(times, power), alarm,
        None if alarm is None else int(np.argmin(means[: alarm + 1])) + 1, n,
    )  # fmt: skip


def _times(looks: int, planned: int, times: Floats | None) -> Floats:
    if looks > planned:
        rule = "cannot be more than planned, for their error is spent"
        raise Defect("looks at a run", rule, (looks, planned), "plan for as many as may come")
    if times is None:
        return np.arange(1, looks + 1) / planned
    found = np.asarray(times, dtype=np.float64)
    rises = bool(np.all(np.diff(found) > 0)) and bool(np.all((found > 0) & (found <= 1)))
    if found.shape != (looks,) or not rises:
        raise Defect("the times of looks", "must rise within (0, 1], one a look", found.tolist())
    return found


def _check(alpha: float, power: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise Defect("the error of looks", "must lie strictly between 0 and 1", alpha)
    if not power > 0:
        raise Defect("the power of the error spent", "must be positive", power)


def _last(times: Floats, power: float) -> float:
    return float(times[-1] ** power) if len(times) else 0.0


def _roots(atoms: Floats) -> Floats:
    """A triangle R [≤ looks, looks] with RᵀR = the looks' sums of squares and products. Column j
    depends on looks 0 … j alone, so what was drawn for a look stays when further looks come."""
    # Only differences of looks matter: without what rows share, they lose no digits.
    gaps = atoms - atoms[:, :1]
    return np.asarray(np.linalg.qr(gaps - gaps.mean(axis=0), mode="r"))


def _errors(roots: Floats, n: int, scale: float) -> Floats:
    """Standard errors [looks, looks] of the differences of two looks; exactly 0 where every row
    moved alike, but for the rounding of losses whose norm is ``scale``."""
    gaps = np.linalg.norm(roots[:, :, None] - roots[:, None, :], axis=0)
    return np.asarray(np.where(gaps <= 1e-14 * scale, 0.0, gaps) / math.sqrt(n * (n - 1.0)))


def _draws(
    roots: Floats, errors: Floats, n: int, seed: np.random.Generator, resamples: int
) -> Floats:
    """T_k of flat paths, [looks, resamples]; −∞ at the first look."""
    size, looks = roots.shape
    scale = np.sqrt((n - 1) / seed.chisquare(n - 1, resamples)) / math.sqrt(n * (n - 1.0))
    normal = np.stack([seed.standard_normal(resamples) for _ in range(size)])
    # Half the memory and time: the draws need no more than three digits.
    means = (roots.T @ normal * scale).astype(np.float32)
    inverse = _inverse(errors).astype(np.float32)
    law = np.full((looks, resamples), -np.inf, dtype=np.float32)
    for k in range(1, looks):
        rises = means[k] - means[:k]
        rises *= inverse[k, :k, None]
        law[k] = rises.max(axis=0)
    return law


def _inverse(errors: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.asarray(np.where(errors > 0, 1 / errors, 0.0))


def _observed(means: Floats, errors: Floats) -> Floats:
    """T_k [looks]: where every row moved alike, ±∞ by the sign of the move, 0 without one."""
    rises = means[:, None] - means[None]
    sure = (errors == 0) & (np.abs(rises) > 1e-12 * np.abs(means).max())
    t = np.where(sure, np.copysign(np.inf, rises), 0.0)
    t = np.where(errors > 0, rises * _inverse(errors), t)
    earlier = np.tri(len(means), k=-1, dtype=bool)
    return np.asarray(np.where(earlier, t, -np.inf).max(axis=1))


def boundary_of(draws: Floats, spent: Floats) -> Floats:
    """Boundaries [looks] such that the share ``spent`` [looks] of ``draws`` [looks, resamples] has
    crossed one up to each look; ∞ where less than one draw may cross."""
    looks, resamples = draws.shape
    # The observed path counts as one more draw, which makes the level exact for any number.
    allowed = np.floor(spent * (resamples + 1) + 1e-9).astype(np.int64)
    alive = np.arange(resamples)
    boundary = np.full(looks, np.inf)
    for k in range(1, looks):
        free = min(len(alive), int(allowed[k]) - (resamples - len(alive)))
        if free > 0:
            kept = len(alive) - free
            # Exactly `free` draws cross, also among equal ones (looks at one and the same state).
            order = np.argpartition(draws[k, alive], kept)
            boundary[k] = draws[k, alive[order[kept]]]
            alive = np.delete(alive, order[kept:])
    return boundary


def _alarm(observed: Floats, boundary: Floats) -> int | None:
    crossed = np.flatnonzero(observed > boundary)
    return int(crossed[0]) if len(crossed) else None


def _p_value(observed: Floats, draws: Floats, path: Floats, alpha: float, alarm: bool) -> float:
    """The smallest of ``LEVELS`` (and alpha) with an alarm, by bisection on alpha's side."""
    levels = np.append(LEVELS[alpha > LEVELS], alpha) if alarm else LEVELS[alpha < LEVELS]
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        if _alarm(observed, boundary_of(draws, levels[middle] * path)) is None:
            low = middle + 1
        else:
            high = middle
    return float(levels[high])


def _interval(
    means: Floats, errors: Floats, law: Floats, n: int, level: float
) -> tuple[float, float]:
    from scipy.special import stdtrit

    rises, errors = (means[-1] - means)[:-1], errors[:-1]
    joint = float(np.quantile(law, (1 + level) / 2))
    single = float(stdtrit(n - 1, (1 + level) / 2))
    low, high = (rises - joint * errors).max(), (rises + single * errors).max()
    return max(0.0, float(low)), max(0.0, float(high))
