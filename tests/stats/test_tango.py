from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar

from holdfast.core.errors import Defect
from holdfast.stats.intervals import noninferiority_p, tango


def _by_likelihood(b: float, c: float, n: int, margin: float) -> float:
    """The score test with the nuisance found by maximising the trinomial likelihood."""

    def against(q: float) -> float:
        tied = 1 - 2 * q - margin
        return -(b * np.log(q + margin) + c * np.log(q) + (n - b - c) * np.log(tied))

    low, high = max(0.0, -margin), (1 - margin) / 2
    q = minimize_scalar(against, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    z = (b - c - n * margin) / np.sqrt(n * (2 * q + margin * (1 - margin)))
    return float(stats.norm.cdf(z))


@pytest.mark.parametrize(
    ("b", "c", "n", "margin"), [(12, 9, 200, 0.05), (3, 8, 120, 0.02), (30, 31, 400, -0.03)]
)
def test_the_nuisance_is_the_most_likely_one(b: int, c: int, n: int, margin: float) -> None:
    assert noninferiority_p(b, c, n, margin) == pytest.approx(
        _by_likelihood(b + 0.5, c, n, margin), abs=1e-6
    )


@pytest.mark.parametrize("n", [100, 300, 600])
@pytest.mark.parametrize("margin", [0.02, 0.05])
@pytest.mark.parametrize("second", [0.002, 0.01, 0.04])
def test_a_difference_of_the_margin_is_refused_in_five_per_cent_at_most(
    n: int, margin: float, second: float
) -> None:
    """Every table of right and wrong answers, weighed by its chance."""
    most = int(stats.binom.ppf(1 - 1e-9, n, second + margin)) + 1
    size = 0.0
    for b in range(most + 1):
        for c in range(int(stats.binom.ppf(1 - 1e-9, n, second)) + 2):
            if b + c <= n and noninferiority_p(b, c, n, margin) <= 0.05:
                counts = [b, c, n - b - c]
                chances = [second + margin, second, 1 - 2 * second - margin]
                size += float(stats.multinomial.pmf(counts, n, chances))
    assert size <= 0.05


def test_the_interval_holds_what_neither_test_refuses() -> None:
    low, high = tango(12, 5, 150, 0.9)
    assert noninferiority_p(12, 5, 150, high) == pytest.approx(0.05, abs=1e-9)
    assert noninferiority_p(5, 12, 150, -low) == pytest.approx(0.05, abs=1e-9)
    assert tango(5, 12, 150, 0.9) == pytest.approx((-high, -low))
    assert low < 7 / 150 < high
    assert tango(0, 0, 0) == (-1.0, 1.0)


def test_more_rows_that_agree_make_it_narrower() -> None:
    widths = [np.ptp(tango(0, 0, n)) for n in (10, 100, 1000)]
    assert widths[0] > 5 * widths[1] > 25 * widths[2]


def test_what_is_no_margin_is_refused() -> None:
    with pytest.raises(Defect):
        noninferiority_p(1, 1, 10, 1.0)
    with pytest.raises(Defect):
        noninferiority_p(8, 8, 10, 0.1)
