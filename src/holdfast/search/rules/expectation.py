"""What to expect on unseen rows of a setting that was chosen by validation rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats, Ints
from holdfast.search.rules.shrinkage import scores_of, shrunken
from holdfast.stats.intervals import design_effect, wilson
from holdfast.stats.paired_tests import by_groups


@dataclass(frozen=True, slots=True)
class ScoreRange:
    """A number, and between which others it lies."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ExpectedScore(ScoreRange):
    """The score to expect of the chosen setting on unseen rows, ``value`` with an interval, in the
    unit of the score. ``measured`` is its score on the rows that chose it, and ``optimism`` by how
    much that is too good: measured − value, with the interval that this leaves it."""

    measured: float
    optimism: ScoreRange


def expected_test(
    score: Mapping[str, Floats],
    chosen: str,
    default: str,
    *,
    losses: Mapping[str, Floats] | None = None,
    test_rows: int | None = None,
    level: float = 0.95,
    units: Ints | None = None,
) -> ExpectedScore:
    """The score of ``chosen`` on rows to come, without the luck that choosing it has bought.

    Of the chosen setting's gain over the default in the probability of what was right, D, the part
    D − E(δ | all trials) is luck (``shrunken``). The score's own differences go with it, row by
    row, by a slope β = cov(score, probability) ÷ var(probability), so the optimism of the score is
    β (D − E δ), and 0 for the default, which nothing chose. It takes no resampling, and is as near
    the truth as the bootstrap's (1708.07180) in the arena.

    The interval is Wilson's for a score of 0 and 1 (around the corrected rate, by Student's
    quantile), Student's for any other, corrected for the skew of the rows (losses have a long tail:
    on 60 rows Student's own held the truth in 89 %), for the mean over all rows to come; with
    ``test_rows`` for the mean over so many of them.

    Parameters
    ----------
    score : of each trial [n], the same validation rows: 1 and 0 for right and wrong, or any score
        whose mean is the metric (such as −loss).
    chosen, default : of the trials.
    losses : of each trial [n] in nats; without them ``score`` itself says what was luck.
    level : of the interval, in (0, 1).
    units : [n] of each row, whole numbers: rows of one unit (a group, copies) are no evidence of
        their own, so Wilson's rows are n ÷ their design effect. Without them each row is.

    Raises ``Defect`` for rows that differ between trials, or a key that is no trial.
    """
    for key in (chosen, default):
        if key not in score:
            raise Defect("a setting of a search", "must be one of its trials", key)
    rows = {key: np.asarray(values, dtype=np.float64) for key, values in score.items()}
    luck = _luck(rows, chosen, default, losses, units)
    measured = float(rows[chosen].mean())
    rate = bool(np.isin(rows[chosen], (0.0, 1.0)).all())
    value = min(1.0, max(0.0, measured - luck)) if rate else measured - luck
    low, high = _interval(rows[chosen], value, rate, test_rows, level, units)
    optimism = ScoreRange(measured - value, measured - high, measured - low)
    return ExpectedScore(value, low, high, measured, optimism)


def _luck(
    rows: Mapping[str, Floats],
    chosen: str,
    default: str,
    losses: Mapping[str, Floats] | None,
    units: Ints | None,
) -> float:
    """By how much the mean of ``chosen`` is expected to fall on other rows."""
    if chosen == default:
        return 0.0
    known = scores_of(losses) if losses is not None else rows
    found = shrunken(known, default, units)
    place = found.at(chosen)
    excess = float(found.measured[place] - found.mean[place])
    if losses is None:
        return excess
    gap, by = rows[chosen] - rows[default], known[chosen] - known[default]
    variance = float(by.var())
    return float(np.mean((gap - gap.mean()) * by)) / variance * excess if variance > 0 else 0.0


def _interval(
    rows: Floats, value: float, rate: bool, test_rows: int | None, level: float, units: Ints | None
) -> tuple[float, float]:
    from scipy.special import stdtrit

    count = len(rows)
    n = count if units is None else len(np.unique(units))
    if rate:
        # A mean over m rows of its own has their noise too: as if fewer rows had been seen.
        seen = count if test_rows is None else count * test_rows / (count + test_rows)
        seen /= 1.0 if units is None or n < 2 else design_effect(rows > 0, units)
        # Student's quantile: what was taken off as luck is itself worked out from these rows.
        return wilson(value * seen, seen, quantile=float(stdtrit(max(1, n - 1), 0.5 + level / 2)))
    if n < 2:
        return -math.inf, math.inf
    rows = rows if units is None else by_groups(rows, units)
    spread = float(rows.std(ddof=1))
    share = (1 if test_rows is None else 1 + count / test_rows) / n
    quantile = float(stdtrit(n - 1, 0.5 + level / 2))
    if spread == 0:
        return value, value
    skew = float(np.mean((rows - rows.mean()) ** 3)) / spread**3
    ends = (_unskewed(sign * quantile, skew, n) for sign in (1, -1))
    low, high = (value - spread * math.sqrt(share) * end for end in ends)
    return low, high


def _unskewed(quantile: float, skew: float, n: int) -> float:
    """The quantile of t = (mean − truth) ÷ error for rows of this skewness: with g the skewness,
    (3√n ÷ g) (∛(1 + g (q ÷ √n − g ÷ 6n)) − 1), the inverse of Hall's transformation (1992)."""
    if abs(skew) < 1e-6:
        return quantile
    root = math.sqrt(n)
    return 3 * root / skew * (float(np.cbrt(1 + skew * (quantile / root - skew / (6 * n)))) - 1)
