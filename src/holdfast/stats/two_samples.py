"""Two samples of different rows: is the mean of the second another than that of the first?

One door for every kind of row: right or wrong, a number, and rows that come in groups. Siblings:
``paired`` compares two models on the same rows, ``excess`` asks one-sided questions of many parts
of one sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from holdfast.core.records import Floats
from holdfast.stats.bootstrap import group_codes
from holdfast.stats.excess import group_error
from holdfast.stats.intervals import wilson
from holdfast.stats.paired_tests import Difference, around, welch
from holdfast.stats.rates import fisher, rate_gap

FISHER = "Fisher's exact test"
WELCH = "Welch's t-test"
BY_GROUPS = "cluster-robust t-test"
# Below so many rows the mean of numbers that are not 0 or 1 is not near its law.
FEWEST_NUMBERS, FEWEST_GROUPS = 10, 3
NO_SPREAD = "all values of a set are alike, which shows no spread to judge by"


@dataclass(frozen=True, slots=True)
class TwoSamples:
    """``first`` and ``second`` are the means of ``n_first`` and ``n_second`` rows; ``difference``
    is second − first with limits ``low`` and ``high`` at 95 %, and ``p_value`` that of "no
    difference" by ``test``, two-sided. Where nothing can be said these four are NaN, ``test`` is
    empty and ``why`` says so. ``together`` is the mean of all rows, with Wilson's limits where they
    are independent and right or wrong, else with NaN."""

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

    - Rows of 0 and 1 (wrong or right): Fisher's exact test, the smaller one-sided p doubled, with
      Newcombe's interval of the difference.
    - Numbers: Welch's t-test and its interval, from 10 rows a sample on.
    - Rows in groups (names [n] and [m]; one name in both is one group): Student's t of the
      difference of means, its variance from sums over groups (linearised), with one degree of
      freedom less than the sample of fewer groups has; from 3 groups a sample on. Without names in
      one of the two its rows are groups of their own.
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
        found, why = _by_groups(one, other, first_groups, second_groups, known)
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
        why = f"a set has {least} rows, and a mean of such numbers needs {FEWEST_NUMBERS}"
        return replace(known, why=why)
    else:
        found, test = welch(other, one), WELCH
        why = "" if found.high > found.low else NO_SPREAD
    if found is None or why:
        return replace(known, why=why)
    return replace(
        known,
        difference=found.value,
        low=found.low,
        high=found.high,
        p_value=found.p_value,
        test=test,
        together=(float(values.mean()), math.nan, math.nan),
    )


def _by_groups(
    one: Floats,
    other: Floats,
    first: Iterable[object] | None,
    second: Iterable[object] | None,
    known: TwoSamples,
) -> tuple[Difference | None, str]:
    """The difference of the means, or why there is none."""
    names = [
        [f"row {side} {i}" for i in range(len(x))]
        if given is None
        else [f"group {g}" for g in given]
        for side, (x, given) in enumerate(((one, first), (other, second)))
    ]
    codes = group_codes([*names[0], *names[1]], len(one) + len(other))
    fewest = min(len(set(part)) for part in names)
    if fewest < FEWEST_GROUPS:
        return None, f"a set has rows of {fewest} group(s), which do not show how groups differ"
    values = np.concatenate([one, other])
    error, _ = group_error(values, np.arange(len(values)) >= len(one), codes)
    if not error > 0:
        return None, NO_SPREAD
    n = min(len(one), len(other))
    return around(known.second - known.first, error, fewest - 1, 0.95, n), ""
