from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import medfilt

from holdfast.core.errors import Defect
from holdfast.stats.smooth import running_median


@given(st.lists(st.floats(-1e6, 1e6), max_size=25), st.sampled_from([1, 3, 5, 9]))
@settings(max_examples=50, deadline=None)
def test_inside_it_is_scipys_median_filter(values: list[float], window: int) -> None:
    y = np.array(values)
    half = window // 2
    inner = slice(half, max(half, len(y) - half))
    assert len(running_median(y, window)) == len(y)
    if len(y) >= window:
        assert running_median(y, window)[inner] == pytest.approx(medfilt(y, window)[inner])


def test_the_window_shrinks_towards_the_ends() -> None:
    y = np.array([9.0, 1, 2, 8, 4, 0])
    assert running_median(y, 5) == pytest.approx([9, 2, 4, 2, 4, 0])


def test_a_wild_point_has_no_say_and_a_step_stays_sharp() -> None:
    y = np.repeat([0.0, 1.0], 6)
    wild = y.copy()
    wild[3] = 1e9
    assert np.array_equal(running_median(wild, 3), y)


def test_nan_is_left_out_and_infinity_is_a_large_value() -> None:
    y = np.array([0.0, np.nan, 2, np.inf, 3, 3, np.nan])
    assert np.array_equal(running_median(y, 3), [0, 1, np.inf, 3, 3, 3, np.nan], equal_nan=True)
    assert np.isnan(running_median(np.array([1.0, -np.inf, np.nan, np.inf, 1.0]), 3)[2])


@pytest.mark.parametrize("n", range(6))
def test_a_straight_line_stays_a_straight_line(n: int) -> None:
    assert np.array_equal(running_median(np.arange(float(n)), 5), np.arange(float(n)))


@pytest.mark.parametrize("window", [0, 2, -1])
def test_an_even_window_is_refused(window: int) -> None:
    with pytest.raises(Defect, match="odd"):
        running_median(np.ones(4), window)
