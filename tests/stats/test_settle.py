from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from holdfast.core.errors import Defect
from holdfast.stats.paired_tests import rows_needed_for_power


def _found(n: int, margin: float, sides: int, runs: int = 4000) -> float:
    """How often the paired t test of SciPy finds the margin among n rows of spread 1."""
    rows = np.random.default_rng(n).normal(margin, 1, size=(n, runs))
    alternative = "greater" if sides == 1 else "two-sided"
    return float(np.mean(stats.ttest_1samp(rows, 0, alternative=alternative).pvalue < 0.05))


def _spread_one(n: int = 5000) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=n)
    return np.asarray((rows - rows.mean()) / rows.std(ddof=1))


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize(("margin", "power"), [(0.15, 0.8), (0.5, 0.9), (1.5, 0.8)])
def test_that_many_rows_find_the_margin_as_often_as_asked(
    sides: int, margin: float, power: float
) -> None:
    n = rows_needed_for_power(_spread_one(), margin, sides=sides, power=power)  # type: ignore[arg-type]
    assert n is not None
    assert _found(n, margin, sides) >= power - 0.02
    assert _found(max(2, round(n * 0.75)), margin, sides) < power


def test_half_the_margin_needs_four_times_the_rows() -> None:
    gap = _spread_one()
    one, two = rows_needed_for_power(gap, 0.05), rows_needed_for_power(gap, 0.025)
    assert one is not None
    assert two == pytest.approx(4 * one, rel=0.01)


def test_two_sides_need_more_than_one() -> None:
    assert rows_needed_for_power(_spread_one(), 0.1, sides=2) > rows_needed_for_power(
        _spread_one(), 0.1
    )


def test_being_sure_makes_most_answers_large_enough() -> None:
    rng = np.random.default_rng(1)
    true = rows_needed_for_power(_spread_one(), 0.2)
    plain = [rows_needed_for_power(rng.normal(size=15), 0.2) >= true for _ in range(300)]
    sure = [
        rows_needed_for_power(rng.normal(size=15), 0.2, spread_confidence=0.9) >= true
        for _ in range(300)
    ]
    assert 0.3 < np.mean(plain) < 0.6
    assert np.mean(sure) == pytest.approx(0.9, abs=0.06)


def test_copies_in_groups_need_whole_groups() -> None:
    gap = _spread_one(40)
    alone = rows_needed_for_power(gap, 0.3)
    grouped = rows_needed_for_power(np.repeat(gap, 5), 0.3, groups=np.repeat(np.arange(40), 5))
    assert alone is not None
    assert grouped == 5 * alone


def test_too_little_gives_no_number_and_no_spread_the_fewest() -> None:
    assert rows_needed_for_power(np.array([0.1]), 0.1) is None
    assert rows_needed_for_power(np.array([]), 0.1) is None
    assert rows_needed_for_power(np.array([0.1, np.nan, 0.2]), 0.1) is None
    assert rows_needed_for_power(np.zeros(5), 0.1) == 2


@pytest.mark.parametrize("margin", [0.0, -1.0, np.nan, 1e-9])
def test_a_margin_that_nothing_can_settle_is_refused(margin: float) -> None:
    with pytest.raises(Defect):
        rows_needed_for_power(_spread_one(), margin)
