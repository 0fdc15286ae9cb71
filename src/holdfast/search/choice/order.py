"""The ranking of several models on the same rows, and whether these rows show the difference.

There are two measured scores. Every model has a score per row: out of fold by a linear probe on its
frozen layers, or for a generative model after a few updates. Two models are compared row by row, so
that the difficulty of the rows cancels. A short fine-tune of the best two is closer to the intended
use: if its validation rows show a difference, it decides.

The score after a full fine-tune is not predicted. A normal model of it, calibrated on two data
sets, moved a model's score with the log evidence of the other candidates, without a bound, and cut
it off at 1: it predicted 1.000 (0.915 to 1) for rows on which the fine-tuned model scored 0.898.
``benchmarks/choose.py`` measures, by leaving one data set out, whether a prediction can be given
again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Estimate, Floats, Ints
from holdfast.core.seeds import generator
from holdfast.metrics.score import widened
from holdfast.stats.bootstrap import group_codes
from holdfast.stats.intervals import wilson_by_groups
from holdfast.stats.paired_tests import Difference, paired_bootstrap

LEVEL = 0.95
# What may be lost, in the score or as a share of the bits, where a cheaper model is as good.
MARGIN = 0.01
# A model is cheaper where it passes so many times the rows in the same time.
CHEAPER_SPEEDUP = 1.5
# The interval of a mean of groups is Student's: the draws are of no use.
RESAMPLES = 100


@dataclass(frozen=True, slots=True)
class ModelOrder:
    """``order`` [models]: positions, best first. ``lead`` is the first model's lead over the second
    with its 95 % interval (``None`` for one model), from the short fine-tunes if ``by_short``."""

    order: tuple[int, ...]
    lead: Difference | None
    by_short: bool

    @property
    def significant(self) -> bool:
        """Whether the interval of the lead excludes 0."""
        return self.lead is not None and self.lead.low > 0


def rank_models(
    rows: Floats,
    units: Ints,
    short: dict[int, Floats] | None = None,
    valid_units: Ints | None = None,
) -> ModelOrder:
    """The ranking of models by ``rows`` [models, n], higher is better, and by ``short`` (for two
    models, by position, the scores [v] of their validation rows) if these show a difference.

    ``units`` [n] and ``valid_units`` [v] mark rows that are not independent (duplicates, groups). A
    row that one model does not read (NaN) is left out of every comparison; raises ``Defect`` if no
    row is left.
    """
    means = common_rows(rows).mean(axis=1)
    order = sorted(range(len(rows)), key=lambda i: -means[i])
    if len(order) == 1:
        return ModelOrder((0,), None, False)
    first, second = order[:2]
    if short is not None and valid_units is not None and {first, second} <= short.keys():
        lead = difference(short[first], short[second], valid_units)
        if lead.low > 0 or lead.high < 0:
            if lead.high < 0:
                order[:2] = second, first
                lead = difference(short[second], short[first], valid_units)
            return ModelOrder(tuple(order), lead, True)
    return ModelOrder(tuple(order), difference(rows[first], rows[second], units), False)


def common_rows(rows: Floats) -> Floats:
    """The columns of ``rows`` [models, n] for which every model has a score."""
    scores = np.asarray(rows, np.float64)
    common = np.asarray(scores[:, np.isfinite(scores).all(axis=0)])
    if not common.shape[1]:
        raise Defect("a comparison of models", "needs a row that every model has a score of")
    return common


def difference(one: Floats, other: Floats, units: Ints) -> Difference:
    """mean(one − other) over the rows that both have a score for, with Student's 95 % interval over
    units (a jackknife); without limits for fewer than two units."""
    scored = np.isfinite(one) & np.isfinite(other)
    seed = generator(0, "difference of models")
    return paired_bootstrap(
        one[scored],
        other[scored],
        seed=seed,
        groups=group_codes(units[scored], int(scored.sum())),
        level=LEVEL,
        resamples=RESAMPLES,
    )


def estimate(rows: Floats, units: Ints, metric: str, folds: int | None) -> Estimate:
    """The mean of ``rows`` [n] with its 95 % interval: Wilson's over units for accuracy, else
    Student's. Out-of-fold predictions (``folds``) have the wider interval of ``metrics/score.py``,
    for a probe fitted on all rows."""
    scored = np.isfinite(rows)
    values = np.asarray(rows[scored], np.float64)
    units = group_codes(units[scored], len(values))
    value = float(values.mean())
    if metric == "accuracy":
        low, high = wilson_by_groups(values > 0.5, units, LEVEL)
    else:
        interval = difference(values, np.zeros_like(values), units)
        low, high = interval.low, interval.high
        if low == high:
            return Estimate(value, level=LEVEL, why="all rows have the same score: no spread")
    if math.isnan(low):
        return Estimate(value, level=LEVEL, why="one group of rows does not show how groups differ")
    estimated = Estimate(value, low, high, LEVEL)
    if folds is None:
        return estimated
    # R² has no lower end; the other scores of probes lie between 0 and 1.
    return widened(estimated, metric, folds, (-math.inf, 1.0) if metric == "r2" else None)


def cheapest_as_good(
    rows: Floats, units: Ints, rows_per_s: Sequence[float], margin: float = MARGIN
) -> int:
    """The fastest model whose score is at most ``margin`` below the best one's ``rows`` [models, n]
    and whose difference has an interval that includes 0; the best itself if no model is at least
    half again as fast."""
    means = common_rows(rows).mean(axis=1)
    order = sorted(range(len(rows)), key=lambda i: -means[i])
    best = cheapest = order[0]
    for other in order[1:]:
        gap = difference(rows[best], rows[other], units)
        as_good = gap.value <= margin and gap.low <= 0
        if as_good and rows_per_s[other] > CHEAPER_SPEEDUP * rows_per_s[cheapest]:
            cheapest = other
    return cheapest
