"""Whether the validation loss has risen above its best, tested at every evaluation on the same
rows.

The rows are fixed and the model changes. A plain paired test of the last checkpoint against the
best fails for two reasons: the best is the luckiest of many (the winner's curse), and a test at
every evaluation has many chances to be wrong. Here the rows are resampled jointly over the whole
path, the best is selected again in each resample, and the error is spent over the planned
evaluations.

``benchmarks/looks.py`` compares it with a test of a single evaluation, whose p-value becomes too
small if it is computed at every evaluation. If the *rows* arrive and the model is fixed, use
``streams``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints
from holdfast.stats.bootstrap import atom_contributions

RIVAL_LIMIT = 2.5  # standard errors above the best so far: beyond it an evaluation is no rival
POWER = 5.0
TAIL_SHARE = 0.02  # of the error goes to the tail that draws do not reach
# Each is 18 % above the one before: as fine as a p-value from 2,000 draws is worth.
LEVELS = np.geomspace(0.0005, 1.0, 48)
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RiseState:
    """What the evaluations so far say about a rise above the best.

    best : position of the evaluation with the smallest mean loss, the first of ties.
    value, low, high : the rise of the last evaluation above the best in the loss's unit, and its
        interval, corrected for the selection of the best; it holds at this evaluation, not at all
        at once.
    t, boundary : the statistic T of the last evaluation, and the boundary that it has to exceed (∞
        if no error may be spent yet).
    p_value : the smallest error level (on a grid of steps of 18 %) at which an alarm would have
        been raised at any evaluation so far. ``p_value`` ≤ alpha exactly if there is an alarm.
    error_spent : the error that may be spent up to now, at most alpha.
    alarm_at : the position of the first evaluation above its boundary; None without one. A later
        recovery does not revoke it.
    since : the first evaluation after the best one at the time of the alarm; None without one.
    n : rows, or groups where there are groups.
    """

    best: int
    value: float
    low: float
    high: float
    t: float
    boundary: float
    p_value: float
    error_spent: float
    alarm_at: int | None
    since: int | None
    n: int


@dataclass(frozen=True, slots=True)
class ErrorSpending:
    """How the error of a whole run is spent over its evaluations.

    times : [evaluations so far], never falling: the share of the run done at each evaluation
        (``times_by_plan``). Above 1 more than ``alpha`` is spent. Must not depend on the losses.
    alpha : the probability of an alarm at any evaluation of a run that never rises.
    power : how late error is spent; 1 evenly, 3 close to O'Brien and Fleming's boundary, 5 later.
    """

    times: Floats
    alpha: float = 0.05
    power: float = POWER

    def __post_init__(self) -> None:
        known = np.asarray(self.times, dtype=np.float64)
        if not (np.all(np.diff(known) >= 0) and np.all((known >= 0) & (known < np.inf))):
            raise Defect("the times of evaluations", "must not be negative or fall", known.tolist())
        if not 0.0 < self.alpha < 1.0:
            raise Defect(
                "the error of evaluations", "must lie strictly between 0 and 1", self.alpha
            )
        if not self.power > 0:
            raise Defect("the power of the error spent", "must be positive", self.power)

    @property
    def spent_shares(self) -> Floats:
        """The share of all error that may be spent up to each evaluation [evaluations so far]."""
        return np.asarray(self.times**self.power)

    @property
    def error_spent(self) -> float:
        """The error that may be spent up to the last evaluation; 0 without evaluations."""
        return self.alpha * float(self.times[-1] ** self.power) if len(self.times) else 0.0


def rise_at_evaluation(
    losses: Floats,
    spending: ErrorSpending,
    *,
    seed: np.random.Generator,
    groups: Ints | None = None,
    level: float = 0.95,
    resamples: int = 2000,
) -> RiseState:
    """Test, at every evaluation of a run, whether validation has risen above its best.

    With means m_k over the n rows, the statistic of evaluation k is T_k = max over its rivals i < k
    of (m_k − m_i) ÷ √(se_ik · s_k), se that of the paired difference, s_k the median se of all
    pairs so far: thus pairs of neighbours that hardly differ do not set the maximum. Rivals are the
    evaluations that, before evaluation k, were no more than 2.5 standard errors above the lowest: a
    clearly worse one does not compete (Hansen 2005, the test of superior predictive ability). The
    null: the mean falls to its best and then stays, while the losses of single rows keep changing.
    Its worst case is a path that is flat throughout. Its distribution is drawn with the covariance
    of the evaluations: normal means over a common √(χ² ÷ (n − 1)), that is multivariate t, with the
    best selected again in each draw. The boundary b_k satisfies P(T_j > b_j for a j ≤ k) = alpha ·
    (time_k)^power, the error spent (Lan and DeMets 1983; Kim and DeMets 1987), among the draws that
    crossed no earlier boundary. A fiftieth of the error goes to a union bound over Student's tails,
    so that an obvious rise raises its alarm even early in the run. The method uses the correlation
    of past evaluations and needs no covariance of future ones. With equal seeds an evaluation keeps
    its boundary when further evaluations follow: test with one seed throughout a run.

    Parameters
    ----------
    losses : [n, evaluations so far], the same rows at each evaluation, oldest first.
    spending : one time per evaluation.
    groups : [n], whole numbers 0 … G−1; groups are then drawn instead of rows.
    level : of the interval. Its lower limit holds for every choice of the best among the rivals
        (max over i of m_k − m_i − c √(se_ik · s_k) with c from the law of T_k, never below 0); the
        upper one is the largest upper limit of any earlier evaluation.

    The normal distribution replaces resampled rows: in simulated runs of 50 rows with heavy tails
    it keeps the level. Differences of losses with a long tail *downwards* (a few rows improve very
    much while the others rise) are the weakness of every t test; each t is therefore lowered by the
    skewness of its rows (``lower_for_skew``). Over 20 evaluations at 50 rows and an error of 4 %,
    log-normal changes (σ = 1) raise a false alarm in 6 % of the runs, those with σ = 1.5 in 10 %;
    without the shared errors and the lowering it was 40 and 77 %. No test can distinguish a rise
    from a tail that no row of the sample shows.

    Fewer than two evaluations, two rows or two groups, or a loss that is not finite: no alarm, NaN
    for undefined numbers.
    """
    if spending.times.shape != (losses.shape[1],):
        rule = "must be one per evaluation"
        raise Defect("the times of evaluations", rule, spending.times.tolist())
    atoms = atom_contributions(losses, groups)
    n, evaluations = atoms.shape
    finite = bool(np.isfinite(atoms).all())
    means = atoms.mean(axis=0) if n else np.full(evaluations, math.nan)
    best = int(np.argmin(means)) if evaluations and finite and n else 0
    if n < 2 or evaluations < 2 or not finite:
        # The value needs no spread, so it is given even if the test is undefined.
        value = float(means[-1] - means[best]) if evaluations else math.nan
        nothing = (math.nan,) * 4
        return RiseState(best, value, *nothing, math.nan, spending.error_spent, None, None, n)
    roots = _triangular_root(atoms)
    errors = _errors(roots, n, float(np.linalg.norm(atoms, axis=0).max()))
    rivals, scales = _rivals(means, errors), _scales(errors)
    draws = _null_draws(roots, np.where(rivals, _inverse(scales), 0.0), n, seed, resamples)
    observed = np.where(
        rivals, _observed_statistics(means, errors, scales, _skews(atoms), n), -np.inf
    )
    paths = _Paths(
        observed.max(axis=1),
        draws,
        _tail_boundary(errors, scales, rivals, n),
        spending.spent_shares,
    )
    boundary = paths.boundary(spending.alpha)
    # At any evaluation so far, not only the last: an alarm that was raised stays.
    alarm = paths.alarm(spending.alpha)
    low, high = _interval(means, errors[-1], scales[-1], rivals[-1], draws[-1], n, level)
    return RiseState(
        best,
        float(means[-1] - means[best]),
        low,
        high,
        float(paths.observed[-1]),
        float(boundary[-1]),
        paths.p_value(spending.alpha),
        spending.error_spent,
        alarm,
        None if alarm is None else int(np.argmin(means[: alarm + 1])) + 1,
        n,
    )


def times_by_plan(steps: Sequence[int], plans: Sequence[int]) -> Floats:
    """For ``ErrorSpending``: the time of each evaluation [evaluations], from its step and from the
    number of planned steps at that moment, so that it never changes what earlier ones spent.

    (time)^power, the share of all error spent, rises from 0 at step 0 to 1 at the end of the plan
    and stays there. If the plan changes, the remaining share is spent from the step of the last
    evaluation to the new end; a plan that follows a completed one has error of its own, so the
    share goes on to 2.
    """
    spent_shares = np.zeros(len(steps))
    start_step, spent_before, share_left = 0, 0.0, 1.0
    for k, (step, plan) in enumerate(zip(steps, plans, strict=True)):
        if k and plan != plans[k - 1]:
            start_step, spent_before = steps[k - 1], float(spent_shares[k - 1])
            share_left = math.floor(spent_before) + 1 - spent_before
        done_share = min(1.0, max(0, step - start_step) / max(1, plan - start_step))
        spent_shares[k] = spent_before + share_left * done_share**POWER
    # ``ErrorSpending`` raises it to ``POWER`` again, which gives ``spent_shares``.
    return np.asarray(np.maximum.accumulate(spent_shares) ** (1 / POWER))


def times_without_plan(evaluations: int) -> Floats:
    """For ``ErrorSpending`` at ``power`` 1: the error spent over evaluations without an end,
    k² ÷ (k² + 100): an eighth by the fourth evaluation, half by the tenth, never all."""
    squares = np.arange(1.0, evaluations + 1) ** 2
    return np.asarray(squares / (squares + 100))


@dataclass(frozen=True, slots=True)
class _Paths:
    """The observed path [evaluations] and flat ones ``draws`` [evaluations, resamples], the bound
    ``far`` of the distribution's far tail, and the share of all error that may be spent up to each
    evaluation, ``path`` [evaluations]."""

    observed: Floats
    draws: Floats
    far: Callable[[Floats], Floats]
    path: Floats

    def boundary(self, alpha: float) -> Floats:
        """Most of the error by the draws; the rest by a union bound, which is finite even if less
        than one draw may cross, so that an obvious rise is detected early in a run."""
        draws_boundary = crossing_boundary(self.draws, (1 - TAIL_SHARE) * alpha * self.path)
        return np.minimum(
            draws_boundary, self.far(TAIL_SHARE * alpha * np.diff(self.path, prepend=0.0))
        )

    def alarm(self, alpha: float) -> int | None:
        """The first evaluation above its boundary, or ``None``."""
        crossed = np.flatnonzero(self.observed > self.boundary(alpha))
        return int(crossed[0]) if len(crossed) else None

    def p_value(self, alpha: float) -> float:
        """The smallest of ``LEVELS`` (and alpha) with an alarm, by bisection on alpha's side."""
        raised = self.alarm(alpha) is not None
        levels = np.append(LEVELS[alpha > LEVELS], alpha) if raised else LEVELS[alpha < LEVELS]
        low, high = 0, len(levels) - 1
        while low < high:
            middle = (low + high) // 2
            if self.alarm(levels[middle]) is None:
                low = middle + 1
            else:
                high = middle
        return float(levels[high])


def crossing_boundary(draws: Floats, spent_shares: Floats) -> Floats:
    """Boundaries [evaluations] such that the share ``spent_shares`` [evaluations] of ``draws``
    [evaluations, resamples] has crossed one up to each evaluation; ∞ if less than one draw may
    cross."""
    evaluations, resamples = draws.shape
    # The observed path counts as one more draw, which makes the level exact for any number.
    # A product that should be a whole number may be slightly below it.
    allowed = np.floor(spent_shares * (resamples + 1) + 1e-9).astype(np.int64)
    uncrossed_draws = np.arange(resamples)
    boundary = np.full(evaluations, np.inf)
    for k in range(1, evaluations):
        crossing = min(len(uncrossed_draws), int(allowed[k]) - (resamples - len(uncrossed_draws)))
        if crossing > 0:
            uncrossed = len(uncrossed_draws) - crossing
            # Exactly ``crossing`` draws cross, also among ties (equal checkpoints).
            order = np.argpartition(draws[k, uncrossed_draws], uncrossed)
            boundary[k] = draws[k, uncrossed_draws[order[uncrossed]]]
            uncrossed_draws = np.delete(uncrossed_draws, order[uncrossed:])
    return boundary


def _triangular_root(atoms: Floats) -> Floats:
    """A triangle R [≤ evaluations, evaluations] with RᵀR = the evaluations' sums of squares and
    products. Column j depends only on evaluations 0 … j, so the draws for an evaluation stay the
    same when further evaluations follow."""
    # Only differences of evaluations matter: without the rows' common part no digits are lost.
    gaps = atoms - atoms[:, :1]
    return np.asarray(np.linalg.qr(gaps - gaps.mean(axis=0), mode="r"))


def _errors(roots: Floats, n: int, scale: float) -> Floats:
    """Standard errors [evaluations, evaluations] of the differences of two evaluations; exactly 0
    if every row changed equally, up to the rounding of losses whose norm is ``scale``."""
    gaps = np.linalg.norm(roots[:, :, None] - roots[:, None, :], axis=0)
    return np.asarray(np.where(gaps <= 1e-14 * scale, 0.0, gaps) / math.sqrt(n * (n - 1.0)))


def _rivals(means: Floats, errors: Floats) -> Bools:
    """[k, i]: evaluation i < k competes for the best before evaluation k. One that is more than
    ``RIVAL_LIMIT`` standard errors above the lowest one then does not compete."""
    rivals = np.tri(len(means), k=-1, dtype=bool)
    for k in range(1, len(means)):
        best = int(np.argmin(means[:k]))
        rivals[k, :k] = means[:k] - means[best] <= RIVAL_LIMIT * errors[best, :k]
    return rivals


def _scales(errors: Floats) -> Floats:
    """√(se · the median se of all pairs so far) [evaluations, evaluations]: by the standard error
    only, pairs of neighbours that hardly differ would set the largest t."""
    scales = np.zeros_like(errors)
    for k in range(1, len(errors)):
        pairs = errors[: k + 1, : k + 1][np.tri(k + 1, k=-1, dtype=bool)]
        pairs = pairs[pairs > 0]
        if len(pairs):
            # The median of the evaluations so far, not of the run: no boundary may depend on later
            # ones.
            scales[k, :k] = np.sqrt(errors[k, :k] * np.median(pairs))
    return scales


def _skews(atoms: Floats) -> Floats:
    """The skewness [k, i] of the rows' differences (evaluation k − evaluation i); 0 without
    spread."""
    # As in ``_triangular_root``, only differences matter; cubes lose digits fastest.
    gaps = atoms - atoms[:, :1]
    gaps = gaps - gaps.mean(axis=0)
    cubes, mixed = (gaps**3).mean(axis=0), (gaps**2).T @ gaps / len(gaps)
    third = cubes[:, None] - 3 * mixed + 3 * mixed.T - cubes
    squares = gaps.T @ gaps / len(gaps)
    spread = np.diag(squares)[:, None] - 2 * squares + np.diag(squares)
    # Below this, a difference of large squares is rounding.
    enough = spread > 1e-12 * max(float(squares.max(initial=0.0)), 1e-300)
    return np.asarray(np.where(enough, third / np.where(enough, spread, 1.0) ** 1.5, 0.0))


def _null_draws(
    roots: Floats, inverse: Floats, n: int, seed: np.random.Generator, resamples: int
) -> Floats:
    """T_k of flat paths, [evaluations, resamples]; −∞ at the first evaluation. ``inverse`` [k, i]
    is the factor of a rise, 0 if evaluation i does not compete."""
    size, evaluations = roots.shape
    # The scale is drawn before the means, and the means one row of the root after the other: a
    # further evaluation only appends rows, so the draws for earlier ones stay the same.
    scale = np.sqrt((n - 1) / seed.chisquare(n - 1, resamples)) / math.sqrt(n * (n - 1.0))
    normal = np.stack([seed.standard_normal(resamples) for _ in range(size)])
    # Half the memory and time: the draws need only three digits.
    means = (roots.T @ normal * scale).astype(np.float32)
    law = np.full((evaluations, resamples), -np.inf, dtype=np.float32)
    for k in range(1, evaluations):
        rivals = np.flatnonzero(inverse[k, :k])
        if len(rivals):
            rises = means[k] - means[rivals]
            rises *= inverse[k, rivals, None].astype(np.float32)
            law[k] = rises.max(axis=0)
        else:
            # Every row changed equally, so no rise is due to chance.
            law[k] = 0.0
    return law


def _inverse(errors: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.asarray(np.where(errors > 0, 1 / errors, 0.0))


def _observed_statistics(
    means: Floats, errors: Floats, scales: Floats, skews: Floats, n: int
) -> Floats:
    """The rises of evaluation k above evaluation i ÷ their scales [k, i]: if every row changed
    equally, ±∞ by the sign of the change, 0 without one."""
    rises = means[:, None] - means[None]
    # Means of equal rows may differ by rounding.
    is_certain = (errors == 0) & (np.abs(rises) > 1e-12 * np.abs(means).max())
    t = np.where(is_certain, np.copysign(np.inf, rises), 0.0)
    plain = lower_for_skew(rises * _inverse(errors), skews, n)
    return np.asarray(np.where(scales > 0, plain * errors * _inverse(scales), t))


def lower_for_skew(t: Floats, skews: Floats, n: int) -> Floats:
    """Student's t of n differences with this skewness, lowered so that its upper tail is that of
    the normal distribution (Hall 1992): with u = t ÷ √n and g < 0 the skewness,
    √n · (u + g u² ÷ 3 + g² u³ ÷ 27 + g ÷ 6n). Never raised: an upward tail already lowers the
    probability of a false alarm."""
    u, g = np.maximum(t, 0.0) / math.sqrt(n), np.minimum(skews, 0.0)
    lowered = math.sqrt(n) * (u + g * u**2 / 3 + g**2 * u**3 / 27 + g / (6 * n))
    return np.asarray(np.where(t > 0, np.minimum(t, lowered), t))


def _tail_boundary(
    errors: Floats, scales: Floats, rivals: Bools, n: int
) -> Callable[[Floats], Floats]:
    """For error levels [evaluations], the value that T_k exceeds at most that often, by Bonferroni
    over the evaluations with which it is compared."""
    from scipy.special import stdtrit

    width = np.where(rivals & (scales > 0), errors * _inverse(scales), 0.0).max(axis=1)
    rival_counts = np.maximum(rivals.sum(axis=1), 1)

    def tail_boundary(levels: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            found = -width * stdtrit(n - 1, np.maximum(levels, 0.0) / rival_counts)
        return np.asarray(np.where((levels > 0) & (width > 0), found, np.inf))

    return tail_boundary


def _interval(
    means: Floats, errors: Floats, scales: Floats, rivals: Bools, law: Floats, n: int, level: float
) -> tuple[float, float]:
    from scipy.special import stdtrit

    rises = means[-1] - means
    joint = float(np.quantile(law, (1 + level) / 2))
    single = float(stdtrit(n - 1, (1 + level) / 2))
    low = (rises - joint * scales)[rivals].max()
    high = (rises + single * errors)[:-1].max()
    return max(0.0, float(low)), max(0.0, float(high))
