"""Weights of an ensemble, against SciPy's general optimizer on the same objective."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from holdfast.stats.stacking import blend_weights, held_out_losses, mixture_weights


def simplex_minimum(loss, members: int) -> np.ndarray:
    """The lowest of several starts, as SLSQP finds it."""
    rng, best = np.random.default_rng(0), None
    for start in [np.full(members, 1 / members), *rng.dirichlet(np.ones(members), 4)]:
        found = minimize(
            loss,
            start,
            method="SLSQP",
            bounds=[(1e-12, 1)] * members,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"maxiter": 2000, "ftol": 1e-14},
        )
        best = found if best is None or found.fun < best.fun else best
    return np.asarray(best.x)


@pytest.mark.parametrize("shrink", [0.0, 5.0, 50.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_mixture_is_where_scipy_finds_the_best_one(shrink: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    chances = rng.beta(2, 2, (60, 3)) * np.array([1.0, 0.8, 0.3])
    counts = rng.uniform(0.2, 1, 60)

    def loss(weights: np.ndarray) -> float:
        prior = shrink / 3 * np.log(np.maximum(weights, 1e-300)).sum() if shrink else 0.0
        return float(-(counts @ np.log(chances @ weights)) - prior)

    found = mixture_weights(chances, shrink, counts)
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()
    np.testing.assert_allclose(found, simplex_minimum(loss, 3), atol=2e-3)
    assert loss(found) <= loss(simplex_minimum(loss, 3)) + 1e-6


@pytest.mark.parametrize("shrink", [0.0, 3.0, 100.0])
@pytest.mark.parametrize("seed", range(6))
def test_the_blend_is_where_scipy_finds_the_best_one(shrink: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.normal(50, 9, 40)
    answers = truth[:, None] + rng.normal(0, [1.0, 2.0, 6.0, 2.0], (40, 4))
    answers[:, 3] += 4
    spread = ((answers - answers.mean(1, keepdims=True)) ** 2).mean()

    def loss(weights: np.ndarray) -> float:
        miss = ((answers @ weights - truth) ** 2).sum()
        return float(miss + shrink * spread * ((weights - 0.25) ** 2).sum())

    found = blend_weights(answers, truth, shrink)
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()
    assert loss(found) <= loss(simplex_minimum(loss, 4)) * (1 + 1e-6)


@pytest.mark.parametrize("seed", [152, 680, 734])
def test_a_member_that_was_left_out_too_early_comes_back(seed: int) -> None:
    """Members whose errors go together: the first one left out has a weight."""
    rng = np.random.default_rng(seed)
    truth, shared = rng.normal(0, 1, 12), rng.normal(0, 1, (12, 2))
    answers = truth[:, None] + shared @ rng.normal(0, 1, (2, 6)) + rng.normal(0, 0.3, (12, 6))
    spread = ((answers - answers.mean(1, keepdims=True)) ** 2).mean()

    def loss(weights: np.ndarray) -> float:
        miss = ((answers @ weights - truth) ** 2).sum()
        return float(miss + 0.1 * spread * ((weights - 1 / 6) ** 2).sum())

    found = blend_weights(answers, truth, 0.1)
    assert loss(found) <= loss(simplex_minimum(loss, 6)) + 1e-7


def test_more_shrinkage_is_nearer_to_the_mean_and_no_rows_are_the_mean() -> None:
    chances = np.column_stack([np.full(30, 0.9), np.full(30, 0.3)])
    gaps = [abs(mixture_weights(chances, s)[0] - 0.5) for s in (1.0, 20.0, 1e6)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-3
    assert mixture_weights(chances[:0]).tolist() == [0.5, 0.5]
    assert blend_weights(np.zeros((0, 2)), np.zeros(0)).tolist() == [0.5, 0.5]
    # Members that agree leave nothing to weigh.
    same = np.tile(np.arange(5.0)[:, None], 3)
    np.testing.assert_allclose(blend_weights(same, np.zeros(5)), 1 / 3)


def test_rows_of_one_unit_are_never_weighed_by_their_own_kind() -> None:
    units = np.repeat(np.arange(6), 4)
    seen: list[tuple[set[int], set[int]]] = []

    def fit(rows: np.ndarray) -> np.ndarray:
        seen.append((set(units[rows]), set()))
        return np.array([1.0])

    def losses(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        seen[-1] = (seen[-1][0], set(units[rows]))
        return rows.astype(float)

    found = held_out_losses(fit, losses, units, np.random.default_rng(0), folds=3)
    assert found.tolist() == list(range(24))
    assert len(seen) == 3
    assert all(not a & b for a, b in seen)
    alone = held_out_losses(fit, losses, np.zeros(4, dtype=int), np.random.default_rng(0))
    assert np.isnan(alone).all()
