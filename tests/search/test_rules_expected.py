from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from holdfast.core.errors import Defect
from holdfast.core.records import Floats
from holdfast.search.rules.shrinkage import CENTRES, SPREADS, probability_scores, shrink_gains
from holdfast.search.rules.winner import expected_score, select_winner
from holdfast.search.study_verdict import STAKES, next_gain, race, stop_reason


def world(
    rng: np.random.Generator, rows: int, trials: int
) -> tuple[dict[str, Floats], dict[str, Floats], Floats]:
    """Losses and right answers of trials that all know a part of the same rows, and their true
    accuracies. A row is right where its margin is above 0; its probability follows the margin."""
    means = 0.7 + np.concatenate([[0.0], rng.normal(-0.05, 0.06, trials)])
    shared = rng.normal(0, 0.8, rows)
    margin = means[:, None] + shared + rng.normal(0, 0.4, (trials + 1, rows))
    losses = {str(i): np.log1p(np.exp(-2 * one)) for i, one in enumerate(margin)}
    right = {str(i): (one > 0).astype(float) for i, one in enumerate(margin)}
    return losses, right, np.asarray(stats.norm.cdf(means))


def test_what_is_printed_of_a_winner_is_what_becomes_of_it() -> None:
    rng = np.random.default_rng(0)
    printed, true, covered, naive = [], [], [], []
    for _ in range(400):
        losses, right, truth = world(rng, 60, 15)
        key = select_winner(losses, right, dict.fromkeys(losses, 1.0), "0").key
        found = expected_score(right, key, "0", losses=losses)
        luck_of_default = right["0"].mean() - truth[0]
        printed.append(found.optimism.value)
        true.append(right[key].mean() - truth[int(key)] - luck_of_default)
        covered.append(found.low <= truth[int(key)] <= found.high)
        top = max(right, key=lambda k: right[k].mean())
        naive.append(right[top].mean() - truth[int(top)] - luck_of_default)
    assert np.mean(printed) == pytest.approx(np.mean(true), abs=0.005)
    assert 0.92 <= np.mean(covered) <= 0.98
    assert np.mean(naive) > np.mean(true) + 0.02


def test_luck_goes_over_to_the_answers_by_the_slope_of_the_rows() -> None:
    losses, right, _ = world(np.random.default_rng(3), 50, 8)
    scores = probability_scores(losses)
    found = shrink_gains(scores, "0")
    key = found.keys[int(found.measured.argmax())]
    place = found.index(key)
    slope = stats.linregress(scores[key] - scores["0"], right[key] - right["0"]).slope
    luck = slope * (found.measured[place] - found.mean[place])
    told = expected_score(right, key, "0", losses=losses)
    assert told.value == pytest.approx(right[key].mean() - luck)
    assert told.optimism.value == pytest.approx(luck)
    assert told.optimism.low == pytest.approx(told.measured - told.high)
    without = expected_score(scores, key, "0")
    assert without.optimism.value == pytest.approx(found.measured[place] - found.mean[place])


def test_nothing_is_taken_off_a_default_that_nothing_chose() -> None:
    losses, right, _ = world(np.random.default_rng(4), 50, 8)
    told = expected_score(right, "0", "0", losses=losses)
    assert told.value == told.measured
    assert told.optimism.value == 0
    # Wilson's limits are the rates from which the observed one is so many errors away.
    for limit in (told.low, told.high):
        error = np.sqrt(limit * (1 - limit) / 50)
        assert abs(told.value - limit) / error == pytest.approx(stats.t.ppf(0.975, 49))
    seen = expected_score(right, "0", "0", losses=losses, test_rows=100)
    assert seen.low < told.low
    assert seen.high > told.high
    with pytest.raises(Defect):
        expected_score(right, "nobody", "0", losses=losses)


def test_losses_have_a_tail_and_their_interval_leans_with_it() -> None:
    """At each limit Hall's polynomial of the t statistic, which is as good as normal, comes to the
    quantile."""
    losses, _, _ = world(np.random.default_rng(9), 50, 3)
    score = {key: -rows for key, rows in losses.items()}
    told, rows = expected_score(score, "0", "0", losses=losses), score["0"]
    skew = stats.skew(rows) * (49 / 50) ** 1.5
    for limit, sign in ((told.low, 1), (told.high, -1)):
        t = (rows.mean() - limit) / stats.sem(rows)
        found = t + skew * t**2 / 3 / 50**0.5 + skew**2 * t**3 / 27 / 50 + skew / 6 / 50**0.5
        assert found == pytest.approx(sign * stats.t.ppf(0.975, 49))
    even = {"0": np.tile([-1.0, -0.5, 0.5, 1.0], 10)}
    flat = expected_score(even, "0", "0")
    want = stats.t.interval(0.95, 39, 0.0, stats.sem(even["0"]))
    assert (flat.low, flat.high) == (pytest.approx(want[0]), pytest.approx(want[1]))
    # The mean over m rows to come has their noise beside that of the rows that were seen.
    wider = (expected_score(even, "0", "0", test_rows=m) for m in (40, 10**9))
    times = [(one.high - one.low) / (flat.high - flat.low) for one in wider]
    assert times == pytest.approx([2**0.5, 1])
    rng = np.random.default_rng(10)
    held = [
        (one := expected_score({"0": -rng.exponential(1, 50)}, "0", "0")).low <= -1 <= one.high
        for _ in range(600)
    ]
    assert np.mean(held) > 0.93


def test_the_next_trial_gains_what_drawn_ones_gain() -> None:
    losses, _, _ = world(np.random.default_rng(5), 60, 12)
    found = shrink_gains(probability_scores(losses), "0")
    rng, draws = np.random.default_rng(6), 200_000
    law = rng.choice(len(found.weights), draws, p=found.weights)
    centre, spread = found.centres[law], found.spreads[law]
    noise = float(np.median(found.errors[1:]))
    measured = rng.normal(rng.normal(centre, spread), noise)
    believed = centre + spread**2 / (spread**2 + noise**2) * (measured - centre)
    gained = 0.75 * np.maximum(believed - found.mean.max(), 0).mean()
    assert next_gain(found) == pytest.approx(gained, rel=0.03)
    assert len(found.weights) == len(CENTRES) * len(SPREADS)


def test_a_search_ends_when_its_next_trial_would_not_pay() -> None:
    rng = np.random.default_rng(7)
    losses, _, _ = world(rng, 60, 40)
    costs = dict.fromkeys(losses, 1.0)
    few = {key: losses[key] for key in list(losses)[:4]}
    assert stop_reason(few, costs, "0", price=1.0) is None
    assert stop_reason(losses, costs, "0", price=0.0) is None
    told = stop_reason(losses, costs, "0", price=1.0)
    assert told is not None
    assert "100.00 that would justify its cost" in told
    gain = next_gain(shrink_gains(probability_scores(losses), "0"))
    just = gain / 2
    assert stop_reason(losses, costs, "0", price=just) is None
    dear = {key: 1.0 if key == "0" else 3.0 for key in losses}
    assert stop_reason(losses, dear, "0", price=just) is not None
    assert stop_reason(losses, dict.fromkeys(losses, 9.0), "0", price=just) is None


def test_evidence_against_a_trial_as_good_as_the_leader_is_one_on_average() -> None:
    """Every stream of six rows whose gap is −½ or ½ with one chance each: exact."""
    trial, leader = np.log(4.0), np.log(4.0 / 3.0)
    capital = []
    for bits in range(64):
        up = np.array([(bits >> k) & 1 for k in range(6)], dtype=bool)
        gap = np.where(up, 0.5, -0.5)
        capital.append(np.prod(1 + STAKES * gap[:, None], axis=0).mean())
        rows = np.where(up, trial, leader), np.where(up, leader, trial)
        most = max(np.prod(1 + STAKES * gap[:k, None], axis=0).mean() for k in range(7))
        assert race(*rows, error=1 / (1.0001 * most)) is None
        if most > 1.001:
            told = race(*rows, error=1 / (0.9999 * most))
            assert told is not None
            assert f"{100 * gap.mean():.1f} points" in told
    assert np.mean(capital) == pytest.approx(1.0)


def test_a_race_drops_who_is_worse_and_hardly_ever_who_is_not() -> None:
    rng = np.random.default_rng(8)

    def run(gap: float) -> bool:
        p = np.clip(rng.uniform(0.4, 0.6, 100) + rng.normal(0, 0.2, (2, 100)), 0.01, 0.99)
        return race(-np.log(np.clip(p[0] - gap, 0.001, 1)), -np.log(p[1])) is not None

    assert np.mean([run(0.0) for _ in range(300)]) <= 0.1
    assert np.mean([run(0.15) for _ in range(100)]) > 0.9
    rows = np.full(60, 0.5)
    assert race(rows + 0.6, rows)
    assert not race(rows + 0.6, rows, margin=0.3)
    assert race(rows[:0], rows[:0]) is None
    with pytest.raises(Defect):
        race(rows, rows[:5])
    with pytest.raises(Defect):
        race(rows, rows, error=0.0)


@pytest.mark.parametrize("rates", [True, False])
def test_the_interval_of_rows_in_units_holds_the_truth(rates: bool) -> None:
    """The default's score on 15 groups of 8 rows that are much alike, the truth that of all."""
    rng, units = np.random.default_rng(0), np.repeat(np.arange(15), 8)
    held = {False: 0, True: 0}
    for _ in range(400):
        own = rng.normal(0.5, 1.0, 15)[units] + 0.7 * rng.normal(size=120)
        score = {"base": (own > 0).astype(float) if rates else own}
        truth = float(stats.norm.cdf(0.5 / np.hypot(1.0, 0.7))) if rates else 0.5
        for known in held:
            found = expected_score(score, "base", "base", units=units if known else None)
            held[known] += found.low <= truth <= found.high
    assert held[True] / 400 > 0.92
    assert held[False] / 400 < 0.8, "rows alone would be too sure"
