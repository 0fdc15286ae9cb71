"""Tests on different rows: whether the mean of some is above that of others, in one test or many.

``two_samples`` is the one function for every type of row: correct or wrong, numbers, rows in
groups. ``excess_p_values`` runs one-sided tests of many parts of one sample, exactly, by
permutation, or by groups, as for the slices of a test set; ``holm`` adjusts the p-values of many
tests. Siblings: ``paired_tests`` compares two models on the same rows, ``intervals.rate_gap`` gives
an interval of the difference of two rates and no p-value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints
from holdfast.stats.bootstrap import group_codes
from holdfast.stats.intervals import fisher, fisher_above, group_freedom, rate_gap, wilson
from holdfast.stats.paired_tests import Difference, t_interval, welch


def holm(p_values: Floats) -> Floats:
    """Holm's adjusted p-values (Holm 1979), in the order given, [k].

    The i-th smallest of k is multiplied by k − i + 1, then raised to those before it. Rejecting if
    the result is α or less makes a single false rejection among all with probability α at most,
    however the tests depend on one another; it never rejects less than Bonferroni.
    """
    p = np.asarray(p_values, dtype=np.float64)
    return weighted_holm(p, np.ones_like(p))


def weighted_holm(p_values: Floats, weights: Floats) -> Floats:
    """Holm's procedure with unequal weights of the tests (Holm 1979, section 4), [k].

    The tests are sorted by p ÷ weight; each p is multiplied by the weights of those that remain ÷
    its own, then raised to those before it. It has the same guarantee as ``holm``, which equal
    weights give, as long as ``weights`` [k], above 0, were fixed without a look at the p-values.
    """
    p, w = np.asarray(p_values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    order = np.argsort(p / w, kind="stable")
    left = np.cumsum(w[order][::-1])[::-1]
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * left / w[order]))
    return adjusted


Bools = npt.NDArray[np.bool_]
# Numbers to shuffle in total, and the fewest and the most shuffles.
SHUFFLED, LEAST_SHUFFLES, MOST_SHUFFLES = 20_000_000, 999, 9_999
AT_ONCE = 2_000_000


def excess(values: Floats, masks: Bools) -> Floats:
    """mean(values of the chosen) − mean(values of the others), [k]; ``masks`` [k, n]. NaN if one of
    the two has no row."""
    sums, counts = masks @ values, masks.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        others = (values.sum() - sums) / (len(values) - counts)
        return np.asarray(sums / counts - others)


def excess_p_values(
    values: Floats, masks: Bools, *, seed: np.random.Generator, groups: Ints | None = None
) -> Floats:
    """One-sided p-values [k] that the chosen rows are not above the others.

    values : [n] of each row, 0 or 1 (wrong or not) or any numbers.
    masks : [k, n], the chosen rows of each test; p = 1 for all rows or none.
    groups : [n] whole numbers, where rows are not independent draws.

    0 and 1: Fisher's exact test, P(X ≥ observed) for X hypergeometric. Numbers: the share of
    shuffles of the values, the observed order included, with a sum as large, at least 999 shuffles.
    With groups the larger of that p and that of Student's t of the linearised difference of means.
    Its variance comes from sums over groups, and it has the ``group_freedom`` of the groups of the
    chosen rows: a slice of a few large groups proves little.
    """
    from scipy.special import stdtr

    if _is_binary(values):
        n, hits = len(values), round(float(values.sum()))
        counts, observed = masks.sum(axis=1), np.rint(masks @ values).astype(np.int64)
        pairs = zip(counts.tolist(), observed.tolist(), strict=True)
        p: Floats = np.array([fisher_above(k, m, hits - k, n - m) for m, k in pairs])
    else:
        p = _permutation_p_values(values, masks, seed)
    if groups is None:
        return p
    codes = np.unique(groups, return_inverse=True)[1].reshape(-1)
    difference, by_groups = excess(values, masks), np.ones(len(masks))
    for place, mask in enumerate(masks):
        error = group_error(values, mask, codes)
        if error > 0 and math.isfinite(difference[place]):
            freedom = group_freedom(np.bincount(codes[mask]))
            by_groups[place] = stdtr(freedom, -difference[place] / error)
    return np.maximum(p, by_groups)


def _is_binary(values: Floats) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _permutation_p_values(values: Floats, masks: Bools, seed: np.random.Generator) -> Floats:
    n = len(values)
    draws = int(np.clip(SHUFFLED // max(n, 1), LEAST_SHUFFLES, MOST_SHUFFLES))
    table = masks.astype(np.float64).T
    observed = values @ table
    # Sums of the same numbers in another order differ only by rounding.
    observed = observed - 1e-9 * np.maximum(1.0, np.abs(observed))
    above, step = np.ones(len(masks)), max(1, AT_ONCE // max(n, 1))
    for start in range(0, draws, step):
        count = min(step, draws - start)
        block = seed.permuted(np.broadcast_to(values, (count, n)), axis=1)
        above += (block @ table >= observed).sum(axis=0)
    return np.asarray(above / (draws + 1))


def group_error(values: Floats, mask: Bools, codes: Ints) -> float:
    """The standard error of the difference of means by sums over groups. ``mask`` [n] chooses;
    ``codes`` [n] are 0 … G − 1. NaN if no row is chosen or all are, or with one group."""
    inside, outside, total = int(mask.sum()), int((~mask).sum()), int(codes.max()) + 1
    if not inside or not outside or total < 2:
        return math.nan
    share = np.where(
        mask, (values - values[mask].mean()) / inside, -(values - values[~mask].mean()) / outside
    )
    sums = np.bincount(codes, weights=share, minlength=total)
    return math.sqrt(total / (total - 1) * float((sums**2).sum()))


def group_effect(values: Floats, mask: Bools, groups: Ints) -> float:
    """How many times larger the variance of the difference of means is because rows come in
    ``groups`` [n], at least 1."""
    codes = np.unique(groups, return_inverse=True)[1].reshape(-1)
    error = group_error(values, mask, codes)
    alone = group_error(values, mask, np.arange(len(values)))
    return max(1.0, (error / alone) ** 2) if error > 0 and alone > 0 else 1.0


def rows_for_excess(
    values: Floats, mask: Bools, *, alpha: float, power: float = 0.8, groups: Ints | None = None
) -> int | None:
    """How many rows like these a one-sided test at ``alpha`` needs to find the observed difference
    with this power: ((z_{1−α} + z_power) ÷ d)² · (s₁² ÷ π + s₂² ÷ (1 − π)), π the share of the
    chosen rows and s² the two variances (Cohen 1988), times the design effect of groups, at least
    1. None if the difference is not above 0 or one of the two has fewer than two rows.
    """
    from scipy.special import ndtri

    inside, outside = values[mask], values[~mask]
    if min(len(inside), len(outside)) < 2:
        return None
    difference = float(inside.mean() - outside.mean())
    if difference <= 0:
        return None
    share = len(inside) / len(values)
    spread = _variance(inside) / share + _variance(outside) / (1 - share)
    effect = 1.0 if groups is None else group_effect(values, mask, groups)
    z = float(ndtri(1 - alpha) + ndtri(power))
    return math.ceil((z / difference) ** 2 * spread * effect)


def _variance(values: Floats) -> float:
    if _is_binary(values):
        # A rate has spread even if all rows are equal: two rows are added, one of each kind.
        rate = (float(values.sum()) + 1) / (len(values) + 2)
        return rate * (1 - rate)
    return float(values.var(ddof=1))


FISHER = "Fisher's exact test"
WELCH = "Welch's t-test"
BY_GROUPS = "cluster-robust t-test"
# With fewer rows the mean of numbers other than 0 or 1 is not approximately normal.
FEWEST_NUMBERS, FEWEST_GROUPS = 10, 3
NO_SPREAD = "all values of a set are equal, so there is no spread to estimate from"


@dataclass(frozen=True, slots=True)
class TwoSamples:
    """``first`` and ``second`` are the means of ``n_first`` and ``n_second`` rows; ``difference``
    is second − first with limits ``low`` and ``high`` at 95 %, and ``p_value`` the two-sided one of
    "no difference" by ``test``. If there is no result these four are NaN, ``test`` is empty and
    ``why`` gives the reason. ``together`` is the mean of all rows, with Wilson's limits if they are
    independent and correct or wrong, else with NaN."""

    first: float
    second: float
    n_first: int
    n_second: int
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p_value: float = math.nan
    test: str = ""
    together: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    why: str | None = None


def two_samples(
    first: Floats,
    second: Floats,
    first_groups: Iterable[object] | None = None,
    second_groups: Iterable[object] | None = None,
) -> TwoSamples:
    """Compare the means of ``first`` [n] and ``second`` [m].

    - Rows of 0 and 1 (wrong or correct): Fisher's exact test (two-sided), with Newcombe's interval
      of the difference.
    - Numbers: Welch's t-test and its interval, from 10 rows per sample.
    - Rows in groups (names [n] and [m]; one name in both is one group): Student's t of the
      difference of means, its variance from sums over groups (linearised), with the smaller
      ``group_freedom`` of the two samples; from 3 groups per sample. If one of the two
      has no names, each of its rows is a group.
    """
    one, other = (np.asarray(x, dtype=np.float64) for x in (first, second))
    values, least = np.concatenate([one, other]), min(len(one), len(other))
    means = [float(x.mean()) if len(x) else math.nan for x in (one, other)]
    known = TwoSamples(means[0], means[1], len(one), len(other))
    grouped = first_groups is not None or second_groups is not None
    rates = bool(np.isin(values, (0.0, 1.0)).all())
    if not least:
        return replace(known, why="one of the two sets has no rows")
    if not np.isfinite(values).all():
        return replace(known, why="a row's value is not a finite number")
    if grouped:
        difference, why = _by_groups(one, other, first_groups, second_groups, known)
        test = BY_GROUPS
    elif rates:
        hits = [round(float(x.sum())) for x in (one, other)]
        # The interval is of first − second.
        low, high = rate_gap(hits[1], len(other), hits[0], len(one))
        return replace(
            known,
            first=hits[0] / len(one),
            second=hits[1] / len(other),
            difference=hits[1] / len(other) - hits[0] / len(one),
            low=low,
            high=high,
            p_value=fisher(hits[0], len(one), hits[1], len(other)),
            test=FISHER,
            together=(sum(hits) / len(values), *wilson(sum(hits), len(values))),
        )
    elif least < FEWEST_NUMBERS:
        why = f"a set has {least} rows; a mean of such numbers needs {FEWEST_NUMBERS}"
        return replace(known, why=why)
    else:
        difference, test = welch(other, one), WELCH
        why = "" if difference.high - difference.low > _rounding(values) else NO_SPREAD
    if difference is None or why:
        return replace(known, why=why)
    return replace(
        known,
        difference=difference.value,
        low=difference.low,
        high=difference.high,
        p_value=difference.p_value,
        test=test,
        together=(float(values.mean()), math.nan, math.nan),
    )


def _rounding(values: Floats) -> float:
    """A spread that equal numbers may have by rounding."""
    return 1e-9 * float(np.abs(values).max())


def _by_groups(
    one: Floats,
    other: Floats,
    first: Iterable[object] | None,
    second: Iterable[object] | None,
    known: TwoSamples,
) -> tuple[Difference | None, str]:
    """The difference of the means, or why there is none."""
    names = [
        [f"row {sample} {i}" for i in range(len(x))]
        if given is None
        else [f"group {g}" for g in given]
        for sample, (x, given) in enumerate(((one, first), (other, second)))
    ]
    codes = group_codes([*names[0], *names[1]], len(one) + len(other))
    fewest = min(len(set(part)) for part in names)
    if fewest < FEWEST_GROUPS:
        return None, f"a set has rows of {fewest} group(s), too few to show how much groups differ"
    values = np.concatenate([one, other])
    is_second = np.arange(len(values)) >= len(one)
    error = group_error(values, is_second, codes)
    if not error > _rounding(values):
        return None, NO_SPREAD
    n = min(len(one), len(other))
    freedom = min(group_freedom(np.bincount(codes[part])) for part in (is_second, ~is_second))
    return t_interval(known.second - known.first, error, freedom, 0.95, n), ""
