"""The mean of scores that share what they were made of, with an interval that knows it.

An episode's score depends on the classes that were drawn into it, and six hundred episodes of
fifteen classes hold fifteen classes all the same. Siblings: ``intervals.wilson_by_groups`` and
``bootstrap`` are for rows of one group each; here an observation belongs to several units.
"""

from __future__ import annotations

import math

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Floats
from holdfast.stats.paired_tests import Difference, around


def mean_over_units(values: Floats, members: Floats, level: float = 0.95) -> Difference:
    """mean(values) over observations [n], each made of m of C units, for other units of their kind.

    ``members`` [n, C] holds 1 where a unit is part of an observation, in each row equally many.
    The model is value = μ + Σ_{u in it} g_u + e, with g independent of variance σ²_g (a crossed
    random effect; Searle, Casella and McCulloch 1992, ch. 5). Both variances come from the least
    squares fit on ``members``: σ²_e from its residuals, σ²_g from the spread of the effects less
    what noise adds to it, never below 0. Then

        var(mean) = σ²_g Σ_u (n_u ÷ n)² + σ²_e ÷ n,

    and t has C − 1 degrees of freedom. With one unit an observation it is the interval over
    clusters. ``above`` is the share of a flat posterior above 0, as of ``student.paired_t``: with
    differences of two scores on the same episodes it is a paired test.

    No interval (NaN) where the units cannot be told apart: fewer than two, or as many in every
    observation as there are. Raises ``Defect`` for tables that do not belong together.
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
    return around(mean, math.sqrt(variance), units - 1, level, n)
