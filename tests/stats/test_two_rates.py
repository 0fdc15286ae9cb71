"""Two rates of different rows, against SciPy and a simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import fisher_exact

from holdfast.core.errors import Defect
from holdfast.stats.intervals import fisher_above, rows_for_rates


@pytest.mark.parametrize(
    ("a", "n", "b", "m"), [(3, 10, 1, 20), (0, 5, 4, 9), (5, 5, 2, 8), (40, 90, 300, 900)]
)
def test_it_is_fishers_exact_test(a: int, n: int, b: int, m: int) -> None:
    table = [[a, n - a], [b, m - b]]
    assert fisher_above(a, n, b, m) == pytest.approx(fisher_exact(table, "greater").pvalue)
    assert fisher_above(n - a, n, m - b, m) == pytest.approx(fisher_exact(table, "less").pvalue)


def test_no_rows_say_nothing_and_no_rate_is_refused() -> None:
    assert fisher_above(0, 0, 3, 5) == 1.0
    with pytest.raises(Defect, match="two rates"):
        fisher_above(6, 5, 1, 5)
    with pytest.raises(Defect, match="rows for two rates"):
        rows_for_rates(0.4, 0.4, 0.5)


def test_with_so_many_rows_four_in_five_samples_tell() -> None:
    rows = rows_for_rates(0.7, 0.6, 0.3)
    rng, n = np.random.default_rng(0), round(0.3 * rows)
    one = rng.binomial(n, 0.7, 4000) / n
    other = rng.binomial(rows - n, 0.6, 4000) / (rows - n)
    both = (one * n + other * (rows - n)) / rows
    z = (one - other) / np.sqrt(both * (1 - both) * (1 / n + 1 / (rows - n)))
    assert np.mean(z > 1.6449) == pytest.approx(0.8, abs=0.02)
