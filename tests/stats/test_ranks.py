"""Ranks of values, against SciPy's."""

from __future__ import annotations

import numpy as np
from scipy import stats

from holdfast.stats.auc import average_ranks


def test_equal_values_share_their_mean_rank() -> None:
    for seed in range(20):
        values = np.random.default_rng(seed).integers(0, 12, size=30) / 7
        np.testing.assert_array_equal(average_ranks(values), stats.rankdata(values))
    assert average_ranks(np.zeros(0)).size == 0
