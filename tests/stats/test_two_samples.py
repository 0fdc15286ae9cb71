"""Two samples of different rows, against SciPy and a simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from holdfast.stats.two_samples import BY_GROUPS, FISHER, WELCH, two_samples


def hits(k: int, n: int) -> np.ndarray:
    return (np.arange(n) < k).astype(float)


@pytest.mark.parametrize(("k", "n", "j", "m"), [(33, 45, 42, 45), (149, 150, 39, 45), (0, 4, 5, 5)])
def test_rates_are_compared_by_fishers_exact_test(k: int, n: int, j: int, m: int) -> None:
    found = two_samples(hits(k, n), hits(j, m))
    # All tables with these margins that are no more probable than this one.
    likelihoods = stats.hypergeom(n + m, k + j, n).pmf(np.arange(k + j + 1))
    assert found.p_value == pytest.approx(likelihoods[likelihoods <= likelihoods[k] * 1.0001].sum())
    assert found.test == FISHER
    # Newcombe's limits of the difference, as SciPy makes Wilson's of each rate.
    (l1, u1), (l2, u2) = (
        stats.binomtest(a, b).proportion_ci(method="wilson") for a, b in ((k, n), (j, m))
    )
    p, q = k / n, j / m
    assert found.difference == pytest.approx(q - p)
    assert found.low == pytest.approx(q - p - np.hypot(q - l2, u1 - p))
    assert found.high == pytest.approx(q - p + np.hypot(u2 - q, p - l1))
    both = stats.binomtest(k + j, n + m).proportion_ci(method="wilson")
    assert found.together == pytest.approx(((k + j) / (n + m), both.low, both.high))


def test_numbers_are_compared_by_welchs_test() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.gamma(1, 1, 40), rng.gamma(1.4, 1, 25)
    found, theirs = two_samples(one, other), stats.ttest_ind(other, one, equal_var=False)
    limits = theirs.confidence_interval(0.95)
    assert (found.p_value, found.test) == (pytest.approx(theirs.pvalue), WELCH)
    assert (found.low, found.high) == pytest.approx((limits.low, limits.high))


def test_like_groups_are_called_different_seldom() -> None:
    """Rows of a group hang together: 12 and 9 groups of like rates, by simulation."""
    rng, refused = np.random.default_rng(1), []
    names = [
        np.repeat([f"{side}{g}" for g in range(count)], 8) for side, count in (("a", 12), ("b", 9))
    ]
    for _ in range(600):
        sides = [
            (rng.random(len(of)) < np.repeat(rng.beta(2, 1, len(set(of))), 8)).astype(float)
            for of in names
        ]
        found = two_samples(sides[0], sides[1], names[0], names[1])
        assert found.test == BY_GROUPS
        refused.append(found.p_value < 0.05)
    assert np.mean(refused) < 0.07


def test_what_cannot_be_said_has_a_why() -> None:
    none = np.zeros(0)
    for one, other, more in (
        (none, hits(1, 3), ()),
        (np.array([np.nan, 1.0]), hits(1, 3), ()),
        (np.linspace(0, 2, 9), np.linspace(0, 2, 40), ()),
        (np.full(20, 2.5), np.full(30, 2.5), ()),
        (hits(3, 8), hits(5, 8), (["a"] * 8, list("abcdefgh"))),
        (hits(8, 8), hits(8, 8), (list("abcdefgh"), list("ijklmnop"))),
    ):
        found = two_samples(one, other, *more)
        assert found.why
        means = [one.mean() if len(one) else np.nan, other.mean()]
        assert [found.first, found.second] == pytest.approx(means, nan_ok=True)
        assert np.isnan([found.difference, found.low, found.high, found.p_value]).all()


@pytest.mark.parametrize(("one", "other"), [(0.7, 0.7), (0.1, 0.3), (np.log1p(5), np.log1p(5))])
def test_equal_numbers_have_no_spread_though_their_mean_is_rounded(
    one: float, other: float
) -> None:
    first, second = np.full(12, one), np.full(15, other)
    groups = np.arange(12) // 2, np.arange(15) // 3
    for found in (two_samples(first, second), two_samples(first, second, *groups)):
        assert found.why is not None
        assert "no spread" in found.why
        assert np.isnan(found.p_value)
