"""Whether a map is true to a model: limits, orders and tests against brute force and SciPy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from holdfast.analyses.explain.explanation import reason_of
from holdfast.analyses.explain.faithfulness import (
    MAX_EXACT_UNITS,
    FaithfulnessScores,
    agreement,
    curve_points,
    faithfulness,
    joint_p,
)
from holdfast.analyses.explain.masking import (
    Case,
    MaskedScore,
    leave_one_out,
    log_odds,
    probability_of_log_odds,
)
from holdfast.core.records import Floats


def _twisted(units: int, seed: int = 0) -> Callable[[Any], Floats]:
    """A score in which units depend on each other."""
    rng = np.random.default_rng(seed)
    alone, pairs = rng.standard_normal(units), rng.standard_normal((units, units))

    def ask(kept: Any) -> Floats:
        x = kept.astype(float)
        return np.asarray(np.tanh(x @ alone + 0.3 * np.einsum("mi,ij,mj->m", x, pairs, x)))

    return ask


def _additive(weights: Floats) -> MaskedScore:
    return MaskedScore(lambda kept: kept @ np.asarray(weights, dtype=float), len(weights))


def test_each_set_of_units_is_asked_once() -> None:
    asked = []

    def ask(kept: Any) -> Floats:
        asked.append(len(kept))
        return kept.sum(axis=1).astype(float)

    kept = MaskedScore(ask, 3)
    masks = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1]], dtype=bool)
    assert kept(masks).tolist() == [2.0, 2.0, 2.0]
    assert kept(masks[1:]).tolist() == [2.0, 2.0]
    assert asked == [2]
    assert kept.passes == 2


def test_the_limits_of_few_units_are_those_of_all_orders() -> None:
    units, ask = 5, _twisted(5)
    kept = MaskedScore(ask, units)
    whole = kept.full
    every = []
    for order in itertools.permutations(range(units)):
        left, falls = np.ones(units, dtype=bool), []
        for unit in order:
            left[unit] = False
            falls.append(whole - ask(left[None])[0])
        every.append(np.mean(falls))
    values = leave_one_out(kept)
    (found,) = faithfulness(kept, [values], np.random.default_rng(0))
    assert found.low == pytest.approx(min(every))
    assert found.high == pytest.approx(max(every))
    order = np.argsort(-values)
    own = every[list(itertools.permutations(range(units))).index(tuple(map(int, order)))]
    assert found.aopc == pytest.approx(own)
    assert found.naopc == pytest.approx((own - min(every)) / (max(every) - min(every)))
    # Of 999 random orders as many fall as fast as of all 120, but for chance.
    share = np.mean(np.array(every) >= own - 1e-12)
    assert found.p == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 999) + 0.002)


def test_the_beam_of_many_units_comes_near_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """On rows where both can be had: the search finds nine tenths of the way between the limits."""
    from holdfast.analyses.explain.faithfulness import _beam_limits

    ways = []
    for seed in range(10):
        kept = MaskedScore(_twisted(MAX_EXACT_UNITS, seed), MAX_EXACT_UNITS)
        values = leave_one_out(kept)
        (exact,) = faithfulness(kept, [values], np.random.default_rng(0))
        low, high = _beam_limits(
            kept, [values], curve_points(MAX_EXACT_UNITS), np.random.default_rng(0)
        )
        assert exact.low - 1e-9 <= low <= high <= exact.high + 1e-9
        ways.append((high - low) / (exact.high - exact.low))
    assert np.mean(ways) > 0.9


@pytest.mark.parametrize("units", [6, 20])
def test_where_units_add_up_leave_one_out_is_as_faithful_as_can_be(units: int) -> None:
    weights = np.random.default_rng(1).standard_normal(units)
    kept = _additive(weights)
    values = leave_one_out(kept)
    np.testing.assert_allclose(values, weights, atol=1e-12)
    best, worst = faithfulness(kept, [values, -values], np.random.default_rng(0))
    assert best.naopc == pytest.approx(1.0)
    assert best.sufficiency == pytest.approx(0.0)
    assert worst.naopc == pytest.approx(0.0)
    assert best.better
    assert not worst.better
    assert best.p == pytest.approx(1 / (best.orders + 1), abs=0.004)


@pytest.mark.parametrize("units", [5, 20])
def test_maps_of_noise_pass_in_at_most_one_of_twenty(units: int) -> None:
    passed = tried = 0
    for seed in range(40):
        rng = np.random.default_rng(1000 + seed)
        kept = MaskedScore(_twisted(units, seed), units)
        maps = [rng.standard_normal(units) for _ in range(20)]
        passed += sum(one.better for one in faithfulness(kept, maps, rng))
        tried += len(maps)
    # A binomial of 800 at 5 % is beyond 60 in one of a thousand.
    assert passed <= 60
    assert tried == 800


def test_the_first_units_are_counted_one_by_one() -> None:
    assert curve_points(5).tolist() == [1, 2, 3, 4, 5]
    many = curve_points(100)
    assert many[0] == 1
    assert many[-1] == 100
    assert len(many) <= 8
    assert np.all(np.diff(np.diff(many)) >= 0)


def _with_p(p: float, orders: int) -> FaithfulnessScores:
    return FaithfulnessScores(0, 0, 1, 0, 0, 0, p, 0.05, orders, np.zeros(1))


def test_rows_together_are_tested_by_the_sum_of_their_ranks() -> None:
    """Against every pair of ranks, and against the uniform law that it comes to."""
    assert joint_p([_with_p(0.15, 19)]) == pytest.approx(0.15)
    sums = [a + b for a in range(1, 21) for b in range(1, 21)]
    share = np.mean(np.array(sums) <= 2 + 7)
    assert joint_p([_with_p(0.1, 19), _with_p(0.35, 19)]) == pytest.approx(share)
    fine = [_with_p(p, 999) for p in (0.2, 0.4, 0.3, 0.5, 0.1)]
    draws = np.random.default_rng(0).random((200_000, 5)).sum(axis=1)
    assert joint_p(fine) == pytest.approx(np.mean(draws <= 1.5), abs=0.005)
    assert joint_p([*fine, _with_p(0.05, 19)]) is not None
    assert joint_p([]) is None


def test_agreement_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, 12).astype(float), rng.standard_normal(12)
    assert agreement(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert agreement(np.zeros(4), second[:4]) is None


def test_log_odds_are_those_of_the_softmax() -> None:
    logits = np.random.default_rng(0).standard_normal((6, 4)) * 30
    from scipy.special import softmax

    chances = softmax(logits, axis=1)[:, 2]
    np.testing.assert_allclose(probability_of_log_odds(log_odds(logits, 2)), chances, rtol=1e-9)


def test_what_may_be_marked() -> None:
    """A map that names what decides is; one of a row too short, or of an answer that does not move,
    says so."""
    weights = np.array([4.0, 0.1, 0.0, -0.1, 0.05, 0.02])

    def case(weights: Floats) -> Case:
        return Case("yes", "log-odds", _additive(weights), None, probability_of_log_odds)

    found = reason_of(case(weights), "row")
    assert found.map.shown
    assert found.probability_without is not None
    assert found.probability_without[0] == pytest.approx(
        float(probability_of_log_odds(weights.sum() - 4))
    )
    assert reason_of(case(weights), "row", maps=[-weights]).maps[1].worth == (
        "not better than random"
    )
    assert reason_of(case(weights[:3]), "row").map.worth == "too few words"
    assert reason_of(case(weights / 100), "row").map.worth == "hardly moves"
    whole = Case("yes", "output", _additive(weights / 100), None, None)
    assert reason_of(whole, "row").map.shown
