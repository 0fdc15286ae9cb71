"""What the weights of a stack are fitted to."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.stats.stacking import PRIOR_ROWS, mixture_weights
from holdfast.tasks.ensemble import Chances


def test_a_row_of_many_outcomes_counts_as_one_row() -> None:
    """A sentence of 30 words says no more about whom to trust than one of three."""
    rng = np.random.default_rng(0)
    rows = rng.uniform(0.05, 1, (40, 3))
    sizes = rng.integers(1, 30, 40)
    many = Chances(np.repeat(rows, sizes, axis=0), np.repeat(np.arange(40), sizes), 40)
    some = np.arange(5, 40)
    assert many.fit(some) == pytest.approx(mixture_weights(rows[some], PRIOR_ROWS), abs=1e-6)
    weights = np.array([0.2, 0.3, 0.5])
    assert many.losses(weights, some) == pytest.approx(-np.log(rows[some] @ weights))
