"""Ratios of sums as means over rows."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.stats.paired_tests import loss_rows, ratio_rows


def test_the_spread_of_a_ratio_is_the_jackknifes() -> None:
    rng = np.random.default_rng(1)
    below = rng.integers(1, 20, 400).astype(float)
    above = 0.6 * below + rng.normal(size=400)
    rows = ratio_rows(above, below)
    left = np.arange(400)
    without = np.array([above[left != i].sum() / below[left != i].sum() for i in left])
    jackknife = 399 / 400 * ((without - without.mean()) ** 2).sum()
    assert rows.var(ddof=1) / 400 == pytest.approx(jackknife, rel=0.02)


def test_rows_of_losses_have_the_mean_over_tokens_and_differences_stay_differences() -> None:
    rng = np.random.default_rng(2)
    tokens = rng.integers(1, 400, 80)
    one, other = rng.exponential(2.0, (2, 80))
    rows = [loss_rows(each, tokens) for each in (one, other)]
    assert rows[0].mean() == pytest.approx(np.average(one, weights=tokens))
    gap = loss_rows(one - other, tokens)
    assert rows[0] - rows[1] == pytest.approx(gap)


def test_a_row_without_a_token_takes_no_part() -> None:
    rows = loss_rows(np.array([1.0, 3.0, 0.0]), np.array([1, 1, 0]))
    assert rows.mean() == pytest.approx(2.0)
    assert loss_rows(np.array([1.0, 3.0]), None).tolist() == [1.0, 3.0]
    assert np.isnan(ratio_rows(np.zeros(3), np.zeros(3))).all()
    assert loss_rows(np.zeros(0), np.zeros(0, dtype=np.int64)).size == 0
