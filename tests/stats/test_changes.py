from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from holdfast.core.errors import Defect
from holdfast.stats.changes import change_points, strongest_change
from holdfast.stats.smooth import running_median


def _step(rng: np.random.Generator, n: int = 30, at: int = 18, size: float = 3.0) -> np.ndarray:
    return np.asarray(rng.normal(size=n) + size * (np.arange(n) >= at))


def _brute(y: np.ndarray, noise: float, penalty: float, least: int) -> tuple[int, ...]:
    """The best of every division, by trying them all."""
    n, best, found = len(y), np.inf, ()
    for count in range(n // least):
        for cuts in itertools.combinations(range(least, n - least + 1), count):
            parts = np.split(y, cuts)
            if min(map(len, parts)) >= least:
                cost = sum(((p - p.mean()) ** 2).sum() for p in parts) / noise**2 + penalty * count
                if cost < best - 1e-9:
                    best, found = cost, cuts
    return found


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("least", [1, 2, 3])
def test_the_levels_are_the_best_of_all_divisions(seed: int, least: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=11) + np.repeat(rng.normal(0, 3, 4), 3)[:11]
    assert change_points(y, penalty=4.0, noise=1.0, least=least) == _brute(y, 1.0, 4.0, least)


def test_two_clear_steps_are_found_and_flat_series_mostly_left_alone() -> None:
    rng = np.random.default_rng(0)
    y = np.concatenate([rng.normal(0, 1, 15), rng.normal(5, 1, 15), rng.normal(1, 1, 15)])
    assert change_points(y) == pytest.approx((15, 30), abs=1)
    quiet = np.mean([change_points(rng.normal(size=40)) == () for _ in range(150)])
    assert quiet >= 0.85


def test_one_wild_point_is_no_level_after_a_running_median() -> None:
    y = np.random.default_rng(1).normal(size=30)
    y[12] += 20
    assert 13 in change_points(y, least=1)
    assert change_points(running_median(y, 3), noise=1.0) == ()


def test_scale_and_place_of_the_series_do_not_matter() -> None:
    y = _step(np.random.default_rng(2))
    assert change_points(y, least=2) == change_points(1e6 - 1e-3 * y, least=2) == (18,)
    one = strongest_change(y, seed=np.random.default_rng(0))
    other = strongest_change(7 - 2 * y, seed=np.random.default_rng(0))
    assert (one.position, one.p_value) == (other.position, other.p_value)
    assert other.size == pytest.approx(-2 * one.size)


def test_the_p_value_is_the_share_of_all_orders_at_least_as_strong() -> None:
    y = np.array([0.1, -0.4, 0.2, 0.0, 1.5, 1.1, 0.3, 1.9])

    def strongest(order: np.ndarray) -> np.ndarray:
        ts = [
            np.abs(order[:, :k].mean(1) - order[:, k:].mean(1)) * np.sqrt(k * (8 - k) / 8)
            for k in range(1, 8)
        ]
        return np.max(ts, axis=0)

    every = strongest(np.array(list(itertools.permutations(y))))
    expected = np.mean(every >= strongest(y[None])[0] - 1e-9)
    found = strongest_change(y, seed=np.random.default_rng(0), resamples=20_000)
    assert found.p_value == pytest.approx(expected, abs=0.006)


def test_flat_series_are_called_changed_in_at_most_one_of_twenty() -> None:
    """Fewer with heavy tails: an outlier at an end is the strongest cut in every order of the
    others, and equal draws count against a change."""
    rng, runs, alarms = np.random.default_rng(3), 400, 0
    for draw in (rng.standard_normal, lambda n: rng.standard_t(3, n)):
        for _ in range(runs // 2):
            alarms += strongest_change(draw(12), seed=rng, resamples=199).p_value <= 0.05
    assert 0 < alarms <= stats.binom.ppf(0.995, runs, 0.05)


def test_a_step_is_placed_and_sized() -> None:
    found = strongest_change(_step(np.random.default_rng(4)), seed=np.random.default_rng(0))
    assert (found.position, found.p_value) == (18, 0.001)
    assert found.size == pytest.approx(3, abs=1)


def test_points_that_are_not_finite_are_left_out_and_places_stay() -> None:
    y = np.repeat([0.0, 5.0], 10) + np.random.default_rng(5).normal(0, 0.1, 20)
    y[[2, 4]] = np.nan, np.inf
    assert strongest_change(y, seed=np.random.default_rng(0)).position == 10
    assert change_points(y) == (10,)


@pytest.mark.parametrize("n", range(1, 8))
def test_few_points_claim_nothing(n: int) -> None:
    y = np.repeat([0.0, 9.0], [n // 2, n - n // 2]) + np.arange(n) * 0.01
    assert strongest_change(y, seed=np.random.default_rng(0)).p_value == 1.0
    if n < 6:
        assert change_points(y) == ()


def test_seven_points_could_not_reach_five_per_cent() -> None:
    """Why fewer than eight are refused: the most telling series of seven, over all its orders."""
    y = np.repeat([0.0, 1.0], [3, 4])
    orders = np.array(list(itertools.permutations(y)))
    steps = np.all(np.diff(orders, axis=1) >= 0, axis=1) | np.all(np.diff(orders, axis=1) <= 0, 1)
    assert steps.mean() > 0.05


def test_nothing_and_a_constant_have_no_change() -> None:
    for y in (np.zeros(0), np.ones(20), np.full(5, np.nan)):
        assert strongest_change(y, seed=np.random.default_rng(0)).position is None
        assert change_points(y) == ()


def test_a_step_without_noise_is_found_by_both() -> None:
    y = np.repeat([0.0, 1.0], 10)
    assert change_points(y) == (10,)
    assert strongest_change(y, seed=np.random.default_rng(0)).position == 10


@pytest.mark.parametrize("wrong", [{"least": 0}, {"penalty": -1.0}])
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(Defect, match="needs least"):
        change_points(np.arange(9.0), **wrong)  # type: ignore[arg-type]
