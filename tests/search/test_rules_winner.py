from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from holdfast.core.errors import Defect
from holdfast.core.records import Floats
from holdfast.search.rules.shrinkage import (
    CENTRE,
    CENTRE_SPREAD,
    CENTRES,
    SPREAD,
    SPREADS,
    WRONG,
    WRONG_SPREAD,
    probabilities,
    probability_scores,
    shrink_gains,
)
from holdfast.search.rules.winner import LEVEL, MIN_GAIN, p_values, select_winner
from holdfast.stats.paired_tests import loss_rows


def losses_of(gains: Floats, rows: int, seed: int, noise: float = 0.15) -> dict[str, Floats]:
    """Trials whose probability of what is right is the default's and so much more, with noise of
    their own."""
    rng = np.random.default_rng(seed)
    base = rng.uniform(0.3, 0.7, rows)
    drawn = rng.normal(0, noise, (len(gains) + 1, rows))
    all_gains = np.concatenate([[0.0], gains])
    p = np.clip(base + all_gains[:, None] + drawn, 0.01, 0.99)
    return {("base" if not i else f"t{i}"): -np.log(p[i]) for i in range(len(p))}


def test_a_true_gain_is_what_all_its_values_weighed_by_their_chances_come_to() -> None:
    """By brute force: a fine grid of true gains for each law of settings, no formula of normals."""
    losses = losses_of(np.array([0.05, -0.02, -0.3]), 40, 0)
    scores = probability_scores(losses)
    found = shrink_gains(scores, "base")
    true = np.linspace(-1.0005, 0.5, 3002)

    def density(x: Floats, at: float, spread: float) -> Floats:
        return np.asarray(np.exp(-0.5 * ((x - at) / spread) ** 2) / spread)

    laws, means, squares = [], [], []
    for centre in CENTRES:
        for spread in SPREADS:
            prior = (1 - WRONG) * density(true, centre, spread)
            prior = prior + 2 * WRONG * density(true, 0.0, WRONG_SPREAD) * (true < 0)
            log = -0.5 * ((centre - CENTRE) / CENTRE_SPREAD) ** 2
            log -= 0.5 * (np.log(spread / SPREAD) / np.log(2)) ** 2
            mean, square = [], []
            for key in ("t1", "t2", "t3"):
                gap = scores[key] - scores["base"]
                mass = prior * density(true, float(gap.mean()), float(gap.std(ddof=1) / 40**0.5))
                log += np.log(mass.sum())
                mean.append((mass @ true) / mass.sum())
                square.append((mass @ true**2) / mass.sum())
            laws.append(log)
            means.append(mean)
            squares.append(square)
    weights = np.exp(np.array(laws) - max(laws))
    weights = weights / weights.sum()
    wanted = weights @ np.array(means)
    assert found.mean[1:] == pytest.approx(wanted, abs=2e-4)
    assert found.mean[0] == 0


def test_the_luckiest_of_many_equal_trials_is_believed_less_than_one_as_good_among_others() -> None:
    lucky = shrink_gains(probability_scores(losses_of(np.zeros(40), 60, 1)), "base")
    mixed = shrink_gains(probability_scores(losses_of(np.linspace(-0.15, 0.15, 41), 60, 1)), "base")
    top, near = (
        int(lucky.measured.argmax()),
        int(np.abs(mixed.measured - lucky.measured.max()).argmin()),
    )
    assert lucky.mean[top] < 0.5 * lucky.measured[top]
    assert mixed.mean[near] / mixed.measured[near] > lucky.mean[top] / lucky.measured[top]


def test_the_winner_of_trials_that_differ_by_luck_is_hardly_ever_another_than_the_default() -> None:
    keys = [
        select_winner(
            losses := losses_of(np.full(15, -0.01), 60, seed),
            None,
            dict.fromkeys(losses, 1.0),
            "base",
        ).key
        for seed in range(40)
    ]
    plain = [
        min(losses := losses_of(np.full(15, -0.01), 60, seed), key=lambda k: losses[k].mean())
        for seed in range(40)
    ]
    assert sum(key != "base" for key in keys) < sum(key != "base" for key in plain) / 2


def test_a_clear_winner_is_taken_and_told_with_what_will_last() -> None:
    losses = losses_of(np.array([0.15, 0.0, -0.1]), 80, 3)
    right = {key: (rows < 0.7).astype(float) for key, rows in losses.items()}
    found = select_winner(losses, right, dict.fromkeys(losses, 2.0), "base")
    assert found.key == found.most_promising == "t1"
    assert not found.noise
    assert 0.05 < found.gain < 0.2
    assert found.p_value < 0.001
    gap = 100 * (right["t1"].mean() - right["base"].mean())
    assert f"validation accuracy {gap:+.1f} points" in found.because
    more = 100 * (np.exp(-losses["t1"]) - np.exp(-losses["base"])).mean()
    assert f"by {more:+.1f} points (" in found.because


def test_the_evidence_is_paired_t_tests_corrected_for_all_trials_and_their_average() -> None:
    """By SciPy's test, and the weighted procedure step by step: half of the level for the average,
    the other half for the four trials alike."""
    scores = probability_scores(losses_of(np.array([0.06, 0.02, -0.05, 0.04]), 50, 8))
    keys = [key for key in scores if key != "base"]
    of = {key: scores[key] for key in keys} | {"average": sum(scores[key] for key in keys) / 4}
    raw = {k: ttest_rel(v, scores["base"], alternative="greater").pvalue for k, v in of.items()}
    parts = dict.fromkeys(keys, 1 / 8) | {"average": 1 / 2}
    wanted, least = {}, 0.0
    for key in sorted(raw, key=lambda k: raw[k] / parts[k]):
        left = sum(parts[k] for k in raw if k not in wanted)
        least = max(least, min(1.0, raw[key] * left / parts[key]))
        wanted[key] = least
    values, average = p_values(scores, "base")
    found = dict(zip(scores, values, strict=True))
    assert [found[key] for key in keys] == pytest.approx([wanted[k] for k in keys], rel=1e-9)
    assert average == pytest.approx(wanted["average"], rel=1e-9)
    assert found["base"] == 1.0
    one_row = {key: rows[:1] for key, rows in scores.items()}
    assert set(p_values(one_row, "base")[0]) == {1.0}
    alone, same = p_values({key: scores[key] for key in ("base", "t1")}, "base")
    assert alone[1] == same == pytest.approx(raw["t1"])


def test_a_default_that_nothing_is_better_than_is_left_in_at_most_one_search_of_twenty() -> None:
    """Seven trials as good as the default on 43 rows, 400 searches: at most 5 %, and 3 standard
    errors of 1.1 %."""
    left = 0
    for seed in range(400):
        losses = losses_of(np.zeros(7), 43, seed)
        left += select_winner(losses, None, dict.fromkeys(losses, 1.0), "base").key != "base"
    assert left <= 0.05 * 400 + 3 * (0.05 * 0.95 * 400) ** 0.5


def test_a_default_that_is_really_bad_is_left_where_no_trial_alone_shows_it() -> None:
    """Five to twelve points below the trials, on 43 rows: the average of seven trials shows it
    where none of them does."""
    alone = left = 0
    for seed in range(60):
        losses = losses_of(np.array([0.08, 0.05, 0.06, 0.04, 0.08, 0.06, 0.05]), 43, seed)
        found = select_winner(losses, None, dict.fromkeys(losses, 1.0), "base")
        left += found.key != "base"
        alone += found.p_value <= LEVEL
        if found.key != "base" and found.p_value > LEVEL:
            assert "base is worse than the average trial" in found.because
    assert alone < left
    assert left >= 44


def test_a_trial_that_predicts_fewer_rows_correctly_does_not_replace_the_default() -> None:
    losses = losses_of(np.array([0.12]), 80, 5)
    more = {"base": np.zeros(80), "t1": np.ones(80)}
    fewer = {"base": np.ones(80), "t1": np.r_[np.zeros(4), np.ones(76)]}
    costs = {"base": 1.0, "t1": 1.0}
    assert select_winner(losses, more, costs, "base").key == "t1"
    kept = select_winner(losses, fewer, costs, "base")
    assert (kept.key, kept.noise) == ("base", True)
    assert "validation accuracy is lower by 5.0 points" in kept.because


def test_where_rows_do_not_show_a_difference_the_default_is_kept_and_it_is_called_noise() -> None:
    costs = {"base": 3.0, "t1": 1.0}
    seen = [
        select_winner(losses_of(np.array([0.02]), 30, s), None, costs, "base") for s in range(60)
    ]
    noisy = [one for one in seen if one.noise]
    assert noisy
    assert all(one.key == "base" and one.most_promising == "t1" for one in noisy)
    assert "30 validation rows do not show a difference from base" in noisy[0].because
    assert "(paired t-test, Holm's correction for 1 trial, p = " in noisy[0].because
    assert all(one.p_value > LEVEL or one.gain <= MIN_GAIN for one in noisy)
    assert all(one.p_value <= LEVEL and one.gain > MIN_GAIN for one in seen if one.key == "t1")
    # Where the trial compared with is no default, the expected gain alone decides.
    free = select_winner(
        losses_of(np.array([0.02]), 30, seen.index(noisy[0])), None, costs, "base", level=1
    )
    assert (free.key == "t1") == (free.gain > MIN_GAIN)


def test_a_sure_gain_below_a_fifth_of_a_point_keeps_the_default_and_is_told_as_that() -> None:
    losses = losses_of(np.array([0.0015]), 400, 1, noise=0.001)
    found = select_winner(losses, None, {"base": 1, "t1": 1}, "base")
    assert found.p_value < 0.01
    assert 0 < found.gain <= MIN_GAIN
    assert (found.key, found.most_promising, found.noise) == ("base", "t1", True)
    assert "do not show" not in found.because
    assert "0.15 points" in found.because


def test_of_trials_as_good_as_the_best_the_cheapest_is_taken() -> None:
    losses = losses_of(np.array([0.12]), 80, 5)
    losses["cheap"] = losses["t1"] * 1.0005
    found = select_winner(losses, None, {"base": 1, "t1": 5, "cheap": 2}, "base")
    assert found.key == "cheap"
    assert found.most_promising == "t1"
    assert "costs more" in found.because


def test_a_default_that_no_trial_comes_near_has_nothing_against_it() -> None:
    losses = losses_of(np.array([-0.2, -0.3]), 80, 6)
    found = select_winner(losses, None, dict.fromkeys(losses, 1.0), "base")
    assert (found.key, found.most_promising, found.gain) == ("base", "base", 0.0)
    assert (found.p_value, found.p_average) == (1.0, 1.0)


def test_a_trial_whose_losses_are_no_numbers_never_wins() -> None:
    losses = losses_of(np.array([0.0]), 30, 6) | {"broken": np.full(30, np.nan)}
    found = shrink_gains(probability_scores(losses), "base")
    assert found.mean[found.index("broken")] < -0.1
    assert select_winner(losses, None, dict.fromkeys(losses, 1.0), "base").key != "broken"


def test_what_is_no_search_is_refused() -> None:
    losses = losses_of(np.array([0.0]), 30, 7)
    with pytest.raises(Defect, match="default"):
        shrink_gains(probability_scores(losses), "nobody")
    with pytest.raises(Defect, match="same validation rows"):
        probability_scores(losses | {"short": np.zeros(3)})
    with pytest.raises(Defect, match="cost"):
        select_winner(losses, None, {"base": 1.0}, "base")
    alone = select_winner({"base": losses["base"]}, None, {"base": 1.0}, "base")
    assert alone.key == "base"
    assert "no other" in alone.because


def test_rows_of_one_unit_are_no_evidence_of_their_own() -> None:
    """One trial as good as the default, whose gains are alike in each of twelve groups of ten."""
    rng, units = np.random.default_rng(0), np.repeat(np.arange(12), 10)
    left = {False: 0, True: 0}
    for _ in range(400):
        base = rng.uniform(0.4, 0.6, 120)
        other = base + 0.1 * rng.normal(size=12)[units] + 0.1 * rng.normal(size=120)
        losses = {"base": -np.log(base), "t1": -np.log(np.clip(other, 0.01, 0.99))}
        costs = dict.fromkeys(losses, 1.0)
        for known in left:
            asked = units if known else None
            left[known] += select_winner(losses, None, costs, "base", units=asked).key != "base"
    assert left[True] / 400 <= LEVEL + 0.02
    assert left[False] / 400 > 0.15, "the runs in which rows alone would mislead"


def test_the_trial_in_the_place_of_a_default_is_named() -> None:
    losses = losses_of(np.array([0.05]), 200, 0)
    correct = {"base": np.ones(200), "t1": np.r_[np.zeros(20), np.ones(180)]}
    found = select_winner(losses, correct, dict.fromkeys(losses, 1.0), "base", level=1.0)
    assert found.key == "base"
    assert found.because.endswith("so base is kept")
    assert "the default" not in found.because


def test_rows_of_a_mean_over_tokens_score_as_their_perplexity() -> None:
    rng = np.random.default_rng(3)
    tokens, losses = rng.integers(1, 400, 60), rng.exponential(2.0, 60)
    rows = loss_rows(losses, tokens)
    assert rows.min() < 0
    whole = np.average(losses, weights=tokens)
    assert probabilities(rows).mean() == pytest.approx(np.exp(-whole))
    found = probability_scores({"a": rows, "b": loss_rows(losses + 0.1, tokens)})
    assert (found["a"] - found["b"]).mean() == pytest.approx(np.exp(-whole) - np.exp(-whole - 0.1))
    assert probabilities(losses).tolist() == np.exp(-losses).tolist()


@pytest.mark.parametrize("has_classes", [True, False])
def test_only_of_classes_it_is_a_probability_of_the_label(has_classes: bool) -> None:
    losses = losses_of(np.array([0.2]), 200, 0)
    correct = {key: (rows < np.log(2)).astype(float) for key, rows in losses.items()}
    found = select_winner(losses, correct if has_classes else None, {"base": 1, "t1": 1}, "base")
    trial = next(key for key in losses if key != "base")
    assert found.key == trial
    named = "mean probability of the correct label" if has_classes else "mean exp(−loss) of a row"
    assert found.because.startswith(f"its {named} differs from base by +")
