"""Is the mean of some rows above that of all others? Exactly, by permutation, or by groups.

One question a set of rows, many sets at once: what slices of a test set are asked. Siblings:
``rate_gap`` gives an interval of the difference of two rates and no p-value; ``paired`` compares
two models on the same rows.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints
from holdfast.stats.rates import fisher_above

Bools = npt.NDArray[np.bool_]
# Numbers that are shuffled in all, and so many shuffles at least and at most.
SHUFFLED, LEAST, MOST = 20_000_000, 999, 9_999
AT_ONCE = 2_000_000


def excess(values: Floats, chosen: Bools) -> Floats:
    """mean(values of the chosen) − mean(values of the others), [k]; ``chosen`` [k, n]. NaN where
    one of the two has no row."""
    sums, counts = chosen @ values, chosen.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        others = (values.sum() - sums) / (len(values) - counts)
        return np.asarray(sums / counts - others)


def excess_p_values(
    values: Floats, chosen: Bools, *, seed: np.random.Generator, groups: Ints | None = None
) -> Floats:
    """One-sided p-values [k] that the chosen rows are not above the others.

    values : [n] of each row, 0 or 1 (wrong or not) or any numbers.
    chosen : [k, n], which rows each question is about; 1 where all or none are.
    groups : [n] whole numbers, where rows are no independent draws.

    0 and 1: Fisher's exact test, P(X ≥ seen) for X hypergeometric. Numbers: the share of shuffles
    of the values, the seen order among them, with a sum as large, at least 999 shuffles. With
    groups the larger of that p and the one of Student's t of the linearised difference of means,
    its variance from sums over groups, with one degree of freedom less than the chosen rows have
    groups (1 where they have one): a slice of a few large groups proves little.
    """
    from scipy.special import stdtr

    if _is_truth(values):
        n, hits = len(values), round(float(values.sum()))
        counts, seen = chosen.sum(axis=1), np.rint(chosen @ values).astype(np.int64)
        pairs = zip(counts.tolist(), seen.tolist(), strict=True)
        p: Floats = np.array([fisher_above(k, m, hits - k, n - m) for m, k in pairs])
    else:
        p = _shuffled(values, chosen, seed)
    if groups is None:
        return p
    codes = np.unique(groups, return_inverse=True)[1].reshape(-1)
    difference, by_groups = excess(values, chosen), np.ones(len(chosen))
    for place, mask in enumerate(chosen):
        error, inside = group_error(values, mask, codes)
        if error > 0 and math.isfinite(difference[place]):
            by_groups[place] = stdtr(max(1, inside - 1), -difference[place] / error)
    return np.maximum(p, by_groups)


def _is_truth(values: Floats) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _shuffled(values: Floats, chosen: Bools, seed: np.random.Generator) -> Floats:
    n = len(values)
    draws = int(np.clip(SHUFFLED // max(n, 1), LEAST, MOST))
    table = chosen.astype(np.float64).T
    seen = values @ table
    # Sums of the same numbers in another order differ by rounding alone.
    seen = seen - 1e-9 * np.maximum(1.0, np.abs(seen))
    above, step = np.ones(len(chosen)), max(1, AT_ONCE // max(n, 1))
    for start in range(0, draws, step):
        count = min(step, draws - start)
        block = seed.permuted(np.broadcast_to(values, (count, n)), axis=1)
        above += (block @ table >= seen).sum(axis=0)
    return np.asarray(above / (draws + 1))


def group_error(values: Floats, mask: Bools, codes: Ints) -> tuple[float, int]:
    """The standard error of the difference of means by sums over groups, and in how many groups
    the chosen are. ``mask`` [n] chooses; ``codes`` [n] are 0 … G − 1. NaN where a side has no row,
    or there is one group."""
    inside, outside, total = int(mask.sum()), int((~mask).sum()), int(codes.max()) + 1
    if not inside or not outside or total < 2:
        return math.nan, 0
    share = np.where(
        mask, (values - values[mask].mean()) / inside, -(values - values[~mask].mean()) / outside
    )
    sums = np.bincount(codes, weights=share, minlength=total)
    error = math.sqrt(total / (total - 1) * float((sums**2).sum()))
    return error, len(np.unique(codes[mask]))


def rows_for_excess(
    values: Floats, mask: Bools, *, alpha: float, power: float = 0.8, groups: Ints | None = None
) -> int | None:
    """How many rows like these a one-sided test at ``alpha`` needs to find the difference that was
    seen, with this power: ((z_{1−α} + z_power) ÷ d)² · (s₁² ÷ π + s₂² ÷ (1 − π)), π the share of
    the chosen rows and s² the variances on the two sides (Cohen 1988), times the design effect of
    groups, at least 1. None where the difference is not above 0 or a side has fewer than two rows.
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
    effect = 1.0
    if groups is not None:
        codes = np.unique(groups, return_inverse=True)[1].reshape(-1)
        error, _ = group_error(values, mask, codes)
        alone, _ = group_error(values, mask, np.arange(len(values)))
        effect = max(1.0, (error / alone) ** 2) if error > 0 and alone > 0 else 1.0
    z = float(ndtri(1 - alpha) + ndtri(power))
    return math.ceil((z / difference) ** 2 * spread * effect)


def _variance(values: Floats) -> float:
    if _is_truth(values):
        # Where every row is alike a rate still has a spread: two rows are added, one of each kind.
        rate = (float(values.sum()) + 1) / (len(values) + 2)
        return rate * (1 - rate)
    return float(values.var(ddof=1))
