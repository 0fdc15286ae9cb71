from __future__ import annotations

import numpy as np
import pytest

from holdfast.stats.intervals import gap_probability, rate_gap


@pytest.mark.parametrize(
    ("hits", "expected"),
    [
        # Newcombe 1998 (Statistics in Medicine 17, 873–890), table II, method 10.
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((5, 56, 0, 29), (-0.0381, 0.1926)),
        ((0, 10, 0, 20), (-0.1611, 0.2775)),
        ((10, 10, 0, 20), (0.6791, 1.0000)),
    ],
)
def test_it_is_newcombes_table(hits, expected) -> None:
    assert rate_gap(*hits) == pytest.approx(expected, abs=5e-5)


def test_it_holds_the_true_difference_about_as_often_as_it_says() -> None:
    rng, held, runs = np.random.default_rng(0), 0, 2000
    first, second = rng.binomial(60, 0.95, runs), rng.binomial(40, 0.8, runs)
    for one, two in zip(first, second, strict=True):
        low, high = rate_gap(int(one), 60, int(two), 40)
        held += low <= 0.15 <= high
    assert 0.935 <= held / runs <= 0.985


def test_no_rows_on_a_side_tell_nothing() -> None:
    assert rate_gap(0, 0, 3, 4) == (-1.0, 1.0)


@pytest.mark.parametrize(
    "counts", [(60, 60, 9, 11), (58, 60, 40, 45), (500, 512, 150, 200), (3, 11, 0, 0), (0, 0, 5, 9)]
)
def test_the_probability_of_a_gap_is_that_of_draws_from_both_posteriors(counts) -> None:
    hits_1, n_1, hits_2, n_2 = counts
    rng = np.random.default_rng(0)
    first = rng.beta(hits_1 + 1, n_1 - hits_1 + 1, 400_000)
    second = rng.beta(hits_2 + 1, n_2 - hits_2 + 1, 400_000)
    drawn = float((first - second > 0.1).mean())
    assert gap_probability(*counts, 0.1) == pytest.approx(drawn, abs=0.004)


@pytest.mark.slow
def test_it_is_true_as_often_as_it_says_where_every_rate_is_as_likely() -> None:
    """Of draws in which both rates are uniform, those that are given 75 to 85 % hold in 80 %."""
    rng, said, held = np.random.default_rng(1), [], []
    for one, two in rng.uniform(size=(6000, 2)):
        counts = (int(rng.binomial(30, one)), 30, int(rng.binomial(15, two)), 15)
        said.append(gap_probability(*counts, 0.1))
        held.append(one - two > 0.1)
    near = np.abs(np.array(said) - 0.8) < 0.05
    assert near.sum() > 100
    assert np.array(held)[near].mean() == pytest.approx(np.array(said)[near].mean(), abs=0.08)
