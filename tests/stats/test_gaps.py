from __future__ import annotations

import numpy as np
import pytest

from holdfast.stats.gaps import mean_absolute_gap

SHARES = np.full(10, 0.1)


@pytest.mark.parametrize("spread", [0.02, 0.1])
def test_the_interval_covers_where_the_plain_mean_is_biased(spread: float) -> None:
    rng, runs, covered, plain = np.random.default_rng(0), 400, 0, []
    for _ in range(runs):
        true = rng.normal(0.03, spread, 10)
        measured = true + rng.normal(size=10) * 0.1
        low, high = mean_absolute_gap(measured, np.full(10, 0.1), SHARES, seed=rng, draws=500)
        covered += low <= np.abs(true).mean() <= high
        plain.append(np.abs(measured).mean() - np.abs(true).mean())
    assert np.mean(plain) > 0.02
    assert covered / runs > 0.92


def test_gaps_without_noise_are_read_off() -> None:
    gaps = np.linspace(-0.2, 0.3, 10)
    limits = mean_absolute_gap(gaps, np.full(10, 1e-4), SHARES, seed=np.random.default_rng(0))
    assert limits == pytest.approx((np.abs(gaps).mean(),) * 2, abs=1e-3)


def test_more_noise_is_wider() -> None:
    gaps = np.linspace(-0.2, 0.3, 10)
    narrow, wide = (
        mean_absolute_gap(gaps, np.full(10, e), SHARES, seed=np.random.default_rng(0))
        for e in (0.02, 0.1)
    )
    assert wide[1] - wide[0] > narrow[1] - narrow[0]


def test_one_gap_is_its_own_interval() -> None:
    low, high = mean_absolute_gap(
        np.array([0.3]), np.array([0.01]), np.ones(1), seed=np.random.default_rng(0)
    )
    assert low < 0.3 < high
    assert high - low < 0.06


def test_noise_alone_cannot_rule_out_zero() -> None:
    rng, zero = np.random.default_rng(0), 0
    for _ in range(200):
        measured = rng.normal(size=10) * 0.1
        zero += mean_absolute_gap(measured, np.full(10, 0.1), SHARES, seed=rng, draws=50)[0] == 0
    assert zero / 200 > 0.93
