"""Whether a coarser file may be kept: the rule's error, its limits, the rows it asks for."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.plugins.export.measurements import FALSE_ACCEPTANCE_RATE, MARGIN, inferiority


def hits(n: int, wrong: int) -> np.ndarray:
    return np.r_[np.zeros(wrong), np.ones(n - wrong)]


def test_a_file_that_is_worse_by_the_margin_is_kept_no_more_often_than_is_said() -> None:
    generator = np.random.default_rng(5)
    for n, lost, won in ((270, 0.01, 0.0), (600, 0.0125, 0.0025), (3000, 0.01, 0.0)):
        kept = 0
        for _ in range(600):
            drawn = generator.random(n)
            base = (drawn >= won).astype(float)
            other = ((drawn < won) | (drawn >= won + lost)).astype(float)
            kept += inferiority(base, other).shown
        # Three standard errors of 600 draws at that rate.
        assert kept / 600 <= FALSE_ACCEPTANCE_RATE + 0.026


def test_rows_that_all_agree_prove_nothing_where_they_are_few() -> None:
    assert not inferiority(np.ones(100), np.ones(100)).shown
    found = inferiority(np.ones(400), np.ones(400))
    assert found.shown
    assert (found.value, found.changed, found.rows_needed) == (0.0, 0, None)


def test_as_many_more_rows_as_it_says_settle_it() -> None:
    base, other = np.ones(200), hits(200, 1)
    found = inferiority(base, other)
    assert not found.shown
    assert found.rows_needed is not None
    # The same rows over and over, until there are as many.
    again = (200 + found.rows_needed) // 200 + 1
    assert inferiority(np.tile(base, again), np.tile(other, again)).shown
    fewer = max(1, (200 + found.rows_needed) // 400)
    assert not inferiority(np.tile(base, fewer), np.tile(other, fewer)).shown


def test_a_file_that_is_worse_by_more_is_told_no_number_of_rows() -> None:
    found = inferiority(np.ones(1000), hits(1000, 30))
    assert found.value == pytest.approx(0.03)
    assert found.rows_needed is None
    assert not found.shown


def test_the_limit_is_student_s_with_the_imaginary_rows_as_weights() -> None:
    """Against a weighted mean and variance written out by NumPy, doubled so that 1.5 rows are 3."""
    from scipy.stats import t

    gap = np.r_[np.ones(4), -np.ones(2), np.zeros(494)]
    base, other = (gap > 0).astype(float), (gap < 0).astype(float)
    values = np.r_[np.repeat(gap, 2), np.ones(3)]
    n = len(values) / 2
    spread = values.std()
    wanted = values.mean() + t.ppf(0.95, n - 1) * spread / np.sqrt(n - 1)
    assert inferiority(base, other).high == pytest.approx(wanted, abs=1e-12)


def test_rows_of_one_group_count_as_one() -> None:
    gap = np.r_[np.ones(10), np.zeros(990)]
    alone = inferiority(gap, np.zeros(1000))
    together = inferiority(gap, np.zeros(1000), groups=np.arange(1000) // 10)
    assert together.high > alone.high
    assert together.value == alone.value == pytest.approx(MARGIN)


def test_the_last_digits_of_numbers_are_no_change() -> None:
    base = np.linspace(0, 1, 50)
    assert inferiority(base, base + 1e-4).changed == 0
    assert inferiority(base, base + np.where(np.arange(50) < 3, 1e-3, 0)).changed == 3


def test_no_rows_hold_nothing() -> None:
    assert not inferiority(np.zeros(0), np.zeros(0)).shown
