"""Ratios of sums over rows as means over rows, so that whatever tests a mean tests them.

R = Σ a ÷ Σ b becomes the mean of R + (a − R b) ÷ mean(b): its mean over the rows is R, and its
variance that of R by the delta method (Cochran 1977, 6.3). The difference of two such rows is that
of the difference of two ratios over one b.
"""

from __future__ import annotations

import numpy as np

from holdfast.core.records import Floats, Ints


def ratio_rows(above: Floats, below: Floats) -> Floats:
    """The rows [n] of Σ ``above`` ÷ Σ ``below``, both [n]; NaN where nothing is below."""
    total = float(np.sum(below))
    if not total:
        return np.full(len(above), np.nan)
    ratio = float(np.sum(above)) / total
    return np.asarray(ratio + (above - ratio * below) * (len(above) / total))


def loss_rows(losses: Floats, tokens: Ints | None) -> Floats:
    """The rows [n] of a mean loss: the ``losses`` [n] themselves; where they are means over so many
    ``tokens`` [n], those of the mean over all tokens."""
    if tokens is None or not len(losses):
        return losses
    weights = tokens.astype(np.float64)
    return ratio_rows(losses * weights, weights)
