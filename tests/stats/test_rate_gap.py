from __future__ import annotations

import numpy as np
import pytest

from holdfast.stats.rate_gap import rate_gap


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
