from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from holdfast.core.errors import Defect
from holdfast.stats.streams.rates import STAKES, below_evidence, win_evidence


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (7, 2), (30, 41), (90, 60)])
def test_it_is_the_mean_likelihood_ratio_over_win_rates_above_one_half(
    wins: int, losses: int
) -> None:
    def ratio(q: float) -> float:
        fair = (q / 0.5) ** wins * ((1 - q) / 0.5) ** losses
        return float(fair * 2 * stats.beta.pdf(q, 6, 6))

    found = win_evidence(np.array([wins]), np.array([losses]))[0]
    assert np.exp(found) == pytest.approx(integrate.quad(ratio, 0.5, 1)[0], rel=1e-6)


@pytest.mark.parametrize("rate", [0.5, 0.4])
def test_coins_that_are_no_better_than_fair_give_one_on_average_at_most(rate: float) -> None:
    tosses = 40
    wins = np.arange(tosses + 1)
    e = np.exp(win_evidence(wins, tosses - wins))
    mean = float(np.sum(stats.binom.pmf(wins, tosses, rate) * e))
    assert mean <= 1 + 1e-9
    if rate == 0.5:
        assert mean == pytest.approx(1)


def test_bets_on_rows_one_by_one_come_to_the_same_as_on_their_counts() -> None:
    rng, margin = np.random.default_rng(0), 0.02
    gap = rng.choice([1, 0, -1], size=300, p=[0.05, 0.9, 0.05])
    stakes = np.geomspace(1e-4, 0.9 / (1 - margin), STAKES)
    capital = np.prod(1 - stakes * (gap[:, None] - margin), axis=0).mean()
    found = below_evidence(
        np.array([np.sum(gap == 1)]), np.array([np.sum(gap == -1)]), np.array([300]), margin
    )
    assert np.exp(found[0]) == pytest.approx(capital)


def test_a_difference_of_the_margin_gives_one_on_average_at_most() -> None:
    """One more row never raises what is expected, whatever came before."""
    margin, before = 0.03, np.array([[4, 2, 60], [0, 0, 0], [1, 9, 200]])
    chances = np.array([0.08, 0.05, 0.87])
    steps = np.array([[1, 0, 1], [0, 1, 1], [0, 0, 1]])
    for counts in before:
        now = np.exp(below_evidence(*(counts[i : i + 1] for i in range(3)), margin))[0]
        after = counts + steps
        then = np.exp(below_evidence(after[:, 0], after[:, 1], after[:, 2], margin))
        assert float(chances @ then) == pytest.approx(now)
        worse = np.array([0.09, 0.05, 0.86])
        assert float(worse @ then) <= now


def test_what_is_no_margin_is_refused() -> None:
    with pytest.raises(Defect):
        below_evidence(np.array([1]), np.array([0]), np.array([2]), 1.0)
