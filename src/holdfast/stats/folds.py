"""A mean over repeated divisions of the same rows, with an interval that knows they overlap."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats


@dataclass(frozen=True, slots=True)
class Resampled:
    """A mean over divisions with its interval and the two-sided p-value of "it is 0"."""

    value: float
    low: float
    high: float
    p_value: float
    n: int


def corrected_t(values: Floats, train: float, test: float, level: float = 0.95) -> Resampled:
    """Nadeau and Bengio's corrected resampled t interval (2003).

    The values of k divisions share their training rows, so their spread understates the doubt. The
    variance of the mean is taken as (1/k + test ÷ train) s², and t has k − 1 degrees of freedom.
    The correction stands for a correlation of test ÷ (train + test) between divisions, a rule that
    holds well where a learner is stable; it is no theorem. Other data would differ by more than
    this interval: it speaks of models trained on ``train`` rows of this source.

    ``values`` [k], e.g. the difference of two models' scores on each fold; ``train`` and ``test``
    rows of one division (of folds, n (k−1)/k and n/k). Fewer than two values, or one that is not
    finite: NaN limits. No spread: no width, and p = 1 at 0, else 0.
    """
    from scipy.special import stdtr, stdtrit

    if not (train > 0 and test > 0):
        raise Defect("the rows of a division", "must both be positive", (train, test))
    found = np.asarray(values, dtype=np.float64)
    k = len(found)
    value = float(found.mean()) if k else math.nan
    if k < 2 or not np.isfinite(found).all():
        return Resampled(value, math.nan, math.nan, math.nan, k)
    error = math.sqrt((1 / k + test / train) * float(found.var(ddof=1)))
    if error == 0:
        return Resampled(value, value, value, float(value == 0), k)
    half = float(stdtrit(k - 1, (1 + level) / 2)) * error
    p_value = 2 * float(stdtr(k - 1, -abs(value) / error))
    return Resampled(value, value - half, value + half, p_value, k)
