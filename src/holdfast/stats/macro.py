"""An interval of the mean of per-class scores when some classes have a handful of rows.

The bootstrap cannot see what a rare class hides: one row drawn again and again is always right or
always wrong, and in one resample in three it is missing. Joining one score interval per class
(MOVER: Zou and Donner 2008) keeps the doubt of each rare class in the sum.
"""

from __future__ import annotations

import math

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.stats.intervals import wilson


def f1_limits(right: Ints, either: Ints, level: float = 0.95) -> tuple[Floats, Floats]:
    """Limits of F1 per class [classes]: F1 = 2q ÷ (1 + q) rises with the share q = right ÷ either
    of the rows that are labelled or predicted as the class, which has Wilson's interval. A class
    with no such rows: (0, 1)."""
    low, high = rate_limits(right, either, level)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def rate_limits(hits: Ints, among: Ints, level: float = 0.95) -> tuple[Floats, Floats]:
    """Wilson's limits of one rate per class, [classes] each."""
    pairs = [wilson(float(x), float(n), level) for x, n in zip(hits, among, strict=True)]
    limits = np.array(pairs).reshape(-1, 2)
    return limits[:, 0], limits[:, 1]


def mean_limits(
    value: Floats, low: Floats, high: Floats, correlation: Floats, bias: float = 0.0
) -> tuple[float, float]:
    """Limits of the plain mean of ``value`` [classes] from each class's own limits.

    With gaps a = (value − low) ÷ classes: mean − √(aᵀ R a), and likewise above, where R
    [classes, classes] is the correlation of the estimates. Both limits are moved by −``bias``, the
    known bias of the mean, and then kept on their side of the mean and within [0, 1].
    """
    size = len(value)
    below, above = (value - low) / size, (high - value) / size
    # Rounding alone: second moments of rows are positive semidefinite.
    down = math.sqrt(max(0.0, float(below @ correlation @ below)))
    up = math.sqrt(max(0.0, float(above @ correlation @ above)))
    centre = float(value.mean())
    low_limit, high_limit = centre - down - bias, centre + up - bias
    return max(0.0, min(low_limit, centre)), min(1.0, max(high_limit, centre))


def f1_correlation(confusion: Floats) -> Floats:
    """The correlation of the classes' F1 estimates, [classes, classes], by the delta method.

    ``confusion`` [classes, classes], lines the labels. With D_c = labelled + predicted rows, a row
    in cell (i, j) moves F1_i by −F1_i ÷ D_i and F1_j by −F1_j ÷ D_j, and by (2 − 2 F1_c) ÷ D_c on
    the diagonal: an error is shared by two classes, so that they rise and fall together. Half a
    row per class is added on and off the diagonal, since a class that is all right or all wrong
    would otherwise have no influence to correlate.
    """
    size = len(confusion)
    # Half a row in all, spread over the wrong answers of a class.
    off = (1 - np.eye(size)) / max(1, size - 1)
    counts = confusion + 0.5 * np.eye(size) + 0.5 * off
    diagonal = np.diag(counts)
    both = counts.sum(axis=0) + counts.sum(axis=1)
    f1 = 2 * diagonal / both
    errors = counts - np.diag(diagonal)
    shared = (errors + errors.T) * np.outer(f1 / both, f1 / both)
    spread = diagonal * ((2 - 2 * f1) / both) ** 2
    spread += (errors.sum(axis=0) + errors.sum(axis=1)) * (f1 / both) ** 2
    if size == 1:
        return np.ones((1, 1))
    correlation = shared / np.sqrt(np.outer(spread, spread))
    np.fill_diagonal(correlation, 1.0)
    return np.asarray(correlation)
