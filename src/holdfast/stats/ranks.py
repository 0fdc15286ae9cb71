"""Ranks of values."""

from __future__ import annotations

import numpy as np

from holdfast.core.records import Floats


def average_ranks(values: Floats) -> Floats:
    """The rank of each value [n], from 1 for the smallest; equal values share their mean rank.

    ``scipy.stats.rankdata`` for one line of finite numbers, without importing ``scipy.stats``.
    """
    _, place, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])
