"""What to expect on unseen rows of a setting that was chosen by validation rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats
from holdfast.search.rules.shrunken import scores_of, shrunken
from holdfast.stats.intervals import wilson


@dataclass(frozen=True, slots=True)
class Range:
    """A number, and between which others it lies."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Expected(Range):
    """The score to expect of the chosen setting on unseen rows, ``value`` with an interval, in the
    unit of the score. ``measured`` is its score on the rows that chose it, and ``optimism`` by how
    much that is too good: measured − value, with the interval that this leaves it."""

    measured: float
    optimism: Range


def expected_test(
    score: Mapping[str, Floats],
    chosen: str,
    default: str,
    *,
    losses: Mapping[str, Floats] | None = None,
    test_rows: int | None = None,
    level: float = 0.95,
) -> Expected:
    """The score of ``chosen`` on rows to come, without the luck that choosing it has bought.

    Of the chosen setting's gain over the default in the probability of what was right, D, the part
    D − E(δ | all trials) is luck (``shrunken``). The score's own differences go with it, row by
    row, by a slope β = cov(score, probability) ÷ var(probability), so the optimism of the score is
    β (D − E δ), and 0 for the default, which nothing chose. It takes no resampling, and is as near
    the truth as the bootstrap's (1708.07180) in the arena.

    The interval is Wilson's for a score of 0 and 1 (around the corrected rate, by Student's
    quantile), Student's for any other, for the mean over all rows to come; with ``test_rows`` for
    the mean over so many of them.

    Parameters
    ----------
    score : of each trial [n], the same validation rows: 1 and 0 for right and wrong, or any score
        whose mean is the metric (such as −loss).
    chosen, default : of the trials.
    losses : of each trial [n] in nats; without them ``score`` itself says what was luck.
    level : of the interval, in (0, 1).

    Raises ``Defect`` for rows that differ between trials, or a key that is no trial.
    """
    for key in (chosen, default):
        if key not in score:
            raise Defect("a setting of a search", "must be one of its trials", key)
    rows = {key: np.asarray(values, dtype=np.float64) for key, values in score.items()}
    luck = _luck(rows, chosen, default, losses)
    measured = float(rows[chosen].mean())
    rate = bool(np.isin(rows[chosen], (0.0, 1.0)).all())
    value = min(1.0, max(0.0, measured - luck)) if rate else measured - luck
    low, high = _interval(rows[chosen], value, rate, test_rows, level)
    optimism = Range(measured - value, measured - high, measured - low)
    return Expected(value, low, high, measured, optimism)


def _luck(
    rows: Mapping[str, Floats], chosen: str, default: str, losses: Mapping[str, Floats] | None
) -> float:
    """By how much the mean of ``chosen`` is expected to fall on other rows."""
    if chosen == default:
        return 0.0
    known = scores_of(losses) if losses is not None else rows
    found = shrunken(known, default)
    place = found.at(chosen)
    excess = float(found.measured[place] - found.mean[place])
    if losses is None:
        return excess
    gap, by = rows[chosen] - rows[default], known[chosen] - known[default]
    variance = float(by.var())
    return float(np.mean((gap - gap.mean()) * by)) / variance * excess if variance > 0 else 0.0


def _interval(
    rows: Floats, value: float, rate: bool, test_rows: int | None, level: float
) -> tuple[float, float]:
    from scipy.special import stdtrit

    n = len(rows)
    if rate:
        # A mean over m rows of its own has their noise too: as if fewer rows had been seen.
        seen = n if test_rows is None else n * test_rows / (n + test_rows)
        # Student's quantile: what was taken off as luck is itself worked out from these rows.
        return wilson(value * seen, seen, quantile=float(stdtrit(max(1, n - 1), 0.5 + level / 2)))
    if n < 2:
        return -math.inf, math.inf
    share = 1 / n + (0 if test_rows is None else 1 / test_rows)
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * float(rows.std(ddof=1)) * math.sqrt(share)
    return value - half, value + half
