"""Means of dependent observations, with intervals that account for it: resampled splits of the same
rows, and scores that share several units each.

For splits there are two methods with different costs: ``corrected_t`` needs only the folds' scores,
``nested`` the scores of folds within folds. 2409.18836 compares them with eleven others;
``benchmarks/cross_validation.py`` compares them with the conservative z, which costs whole
cross-validations of halves of the rows. ``mean_over_units``: an episode's score depends on the
classes that were drawn into it, and six hundred episodes of fifteen classes still hold only fifteen
classes. Siblings: ``intervals.wilson_by_groups`` and ``bootstrap`` are for rows of one group each;
here an observation belongs to several units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats
from holdfast.stats.paired_tests import Difference, t_interval


@dataclass(frozen=True, slots=True)
class ResampledMean:
    """A mean over splits with its interval and the two-sided p-value of "it is 0"."""

    value: float
    low: float
    high: float
    p_value: float
    n: int


def corrected_t(values: Floats, train: float, test: float, level: float = 0.95) -> ResampledMean:
    """Nadeau and Bengio's corrected resampled t interval (2003).

    The values of k splits share their training rows, so their spread understates the uncertainty.
    The variance of the mean is taken as (1/k + test ÷ train) s², and t has k − 1 degrees of
    freedom. The correction represents a correlation of test ÷ (train + test) between splits, a rule
    that works well for a stable learner; it is not a theorem. Other data would differ by more than
    this interval, which is about models trained on ``train`` rows of this source.

    ``values`` [k], e.g. the difference of two models' scores on each fold; ``train`` and ``test``
    are the rows of one split (for folds, n (k−1)/k and n/k). Fewer than two values, one that is not
    finite, or values that are equal but for rounding: NaN limits and p-value.
    """
    from scipy.special import stdtr, stdtrit

    if not (train > 0 and test > 0):
        raise Defect("the rows of a split", "must both be positive", (train, test))
    scores = np.asarray(values, dtype=np.float64)
    k = len(scores)
    value = float(scores.mean()) if k else math.nan
    if k < 2 or not np.isfinite(scores).all() or np.ptp(scores) <= 1e-12 * max(1.0, abs(value)):
        return ResampledMean(value, math.nan, math.nan, math.nan, k)
    error = math.sqrt((1 / k + test / train) * float(scores.var(ddof=1)))
    half = float(stdtrit(k - 1, (1 + level) / 2)) * error
    p_value = 2 * float(stdtr(k - 1, -abs(value) / error))
    return ResampledMean(value, value - half, value + half, p_value, k)


@dataclass(frozen=True, slots=True)
class NestedMean:
    """A mean of losses by nested cross-validation: bias-corrected ``value`` with its interval,
    and the ``plain`` mean."""

    value: float
    low: float
    high: float
    plain: float


def nested(
    outer: Sequence[Floats], inner: Sequence[Floats], folds: int, level: float = 0.95
) -> NestedMean:
    """Bates, Hastie and Tibshirani's nested cross-validation (2104.00673, algorithm 1).

    ``outer[i]`` are the losses (errors 0 or 1, nats) of the held-out rows, by the model trained on
    all others; ``inner[i]`` those of these others, each held out once within them. For each i

        a = (mean inner − mean outer)²,   b = var(outer) ÷ number of outer

    and mean a − mean b estimates the squared error of a cross-validation from (K − 1)/K of the
    rows, kept between the naive variance of the mean and K times it, as in the authors' program.
    K ``folds``, at least 3; several repeats are given one after the other. The inner means come
    from fewer rows: the value is corrected for that (equation 17). Fewer than two, or losses that
    are not finite: NaN limits.
    """
    from scipy.special import ndtri

    if folds < 3 or len(outer) != len(inner) or not outer:
        raise Defect("nested folds", "need as many inner as outer ones, and at least 3", folds)
    outer_losses = [np.asarray(one, dtype=np.float64) for one in outer]
    inner_losses = [np.asarray(one, dtype=np.float64) for one in inner]
    all_losses = np.concatenate(outer_losses)
    plain = float(all_losses.mean())
    if len(outer_losses) < 2 or not all(
        np.isfinite(one).all() for one in (*outer_losses, *inner_losses)
    ):
        return NestedMean(plain, math.nan, math.nan, plain)
    a = np.array(
        [(i.mean() - o.mean()) ** 2 for i, o in zip(inner_losses, outer_losses, strict=True)]
    )
    b = np.array([o.var(ddof=1) / len(o) if len(o) > 1 else 0.0 for o in outer_losses])
    rows = len(all_losses) / max(1, round(len(outer_losses) / folds))
    naive = float(all_losses.var(ddof=1)) / rows
    mse = min(max(float(a.mean() - b.mean()), naive), folds * naive)
    smaller = float(np.mean([one.mean() for one in inner_losses]))
    value = smaller - (1 + (folds - 2) / folds) * (smaller - plain)
    half = float(ndtri((1 + level) / 2)) * math.sqrt((folds - 1) / folds * mse)
    return NestedMean(value, value - half, value + half, plain)


def mean_over_units(values: Floats, members: Floats, level: float = 0.95) -> Difference:
    """mean(values) over observations [n], each made of m of C units, with an interval for other
    units of the same kind.

    ``members`` [n, C] holds 1 if a unit is part of an observation, equally many in each row.
    The model is value = μ + Σ_{u in it} g_u + e, with g independent of variance σ²_g (a crossed
    random effect; Searle, Casella and McCulloch 1992, ch. 5). Both variances come from the least
    squares fit on ``members``: σ²_e from its residuals, σ²_g from the spread of the effects minus
    what noise adds to it, never below 0. Then

        var(mean) = σ²_g Σ_u (n_u ÷ n)² + σ²_e ÷ n,

    and t has C − 1 degrees of freedom. With one unit per observation it is the interval over
    clusters. ``above`` is the share of a flat posterior above 0, as in ``paired_tests.paired_t``:
    with differences of two scores on the same episodes it is a paired test.

    No interval (NaN) if the units cannot be separated: fewer than two, or all units in every
    observation. Raises ``Defect`` for tables that do not belong together.
    """
    y, x = np.asarray(values, dtype=np.float64), np.asarray(members, dtype=np.float64)
    if x.ndim != 2 or len(x) != len(y) or (len(x) and np.ptp(x.sum(axis=1)) > 0):
        raise Defect("members", "must hold equally many units for each value", x.shape)
    x = x[:, x.any(axis=0)] if len(x) else x
    n, units = x.shape
    mean = float(y.mean()) if n else math.nan
    each = int(x[0].sum()) if n else 0
    if not n or units < 2 or units <= each or not np.isfinite(y).all():
        return Difference(mean, math.nan, math.nan, math.nan, n)
    inverse = np.linalg.pinv(x.T @ x)
    effects = inverse @ (x.T @ y)
    residual = y - x @ effects
    noise = float(residual @ residual) / max(1, n - np.linalg.matrix_rank(x))
    spread = float(effects.var(ddof=1))
    # What estimating the effects adds to their spread: the trace of their covariance, centred.
    added = noise * float(np.trace(inverse) - inverse.sum() / units) / (units - 1)
    shares = x.mean(axis=0)
    variance = max(0.0, spread - added) * float(shares @ shares) + noise / n
    return t_interval(mean, math.sqrt(variance), units - 1, level, n)
