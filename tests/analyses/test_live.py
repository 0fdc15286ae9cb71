from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from holdfast.plugins.live.arms import Arms, in_challenger
from holdfast.plugins.live.shadow import SIDE_EVIDENCE, Shadow, closer_prediction
from holdfast.plugins.live.stream import first_verdict, pair_peaks
from holdfast.plugins.live.summary import comparison_summary, rows_needed


def stored(one: Shadow) -> Shadow:
    return Shadow.from_json(json.loads(json.dumps(one.to_json())))


@pytest.mark.slow
def test_a_shadow_wins_on_the_row_on_which_a_stream_of_all_labelled_rows_does() -> None:
    rng = np.random.default_rng(3)
    signs = rng.choice([1, -1, 0], 3000, p=[0.07, 0.03, 0.9])
    wins, losses, counts = np.cumsum(signs == 1), np.cumsum(signs == -1), np.arange(1, 3001)
    peaks = pair_peaks(wins, losses, counts, 0.01, (0.0,) * 4)
    whole = first_verdict("undecided", peaks, counts, 20.0)
    found = Shadow(0.01)
    for start in range(0, 3000, 7):
        part = signs[start : start + 7]
        found = stored(found.add_rows(len(part), int((part != 0).sum())))
        found = found.add_labels(part[part != 0])
    assert whole["decided"] == found.decided == "better"
    labels = int((signs[: whole["decided_at"]] != 0).sum())
    assert found.decided_at == labels
    # A tenth of the rows needs a label.
    assert labels < whole["decided_at"] / 5
    turned = Shadow(0.01).add_rows(3000, 300).add_labels(-signs[signs != 0])
    assert turned.decided == "worse"


@pytest.mark.slow
def test_at_once_and_one_by_one_are_the_same() -> None:
    rng = np.random.default_rng(8)
    signs = rng.choice([1, -1, 0], 200, p=[0.5, 0.3, 0.2])
    begun = Shadow(0.02).add_rows(2000, 200)
    whole, step = begun.add_labels(signs), begun
    for sign in signs:
        step = stored(step.add_labels(np.array([sign])))
    assert step == whole
    assert whole.labels == 200


def test_two_that_answer_alike_are_equivalent_without_a_label() -> None:
    found = Shadow(0.01).add_rows(5000, 12)
    assert found.decided == "equivalent"
    assert "differ on only 0.24 % of 5,000 rows" in comparison_summary(found)["because"]
    assert Shadow(0.01).add_rows(300, 1).decided == "undecided"


def test_equivalent_is_reached_by_bets_on_each_label_against_the_margin_of_differing_rows() -> None:
    rng = np.random.default_rng(1)
    signs = rng.choice([1, -1, 0], 1200, p=[0.4, 0.4, 0.2])
    begun = Shadow(0.02).add_rows(12_000, 1200)
    found = begun.add_labels(signs)
    # On rows that differ the margin is as much larger as these are fewer at most.
    margin, stakes = 0.02 / begun.share[2], 0.45 * 2.0 ** (-np.arange(10) / 2)
    assert 0.17 < margin < 0.2
    at = []
    for side in (1, -1):
        capital = np.ones(10)
        for row, sign in enumerate(signs, 1):
            capital *= 1 - stakes * (side * sign - margin)
            if capital.mean() >= SIDE_EVIDENCE:
                at.append(row)
                break
    assert len(at) == 2
    assert (found.decided, found.decided_at) == ("equivalent", max(at))
    low, high = found.difference[1:]
    assert -0.02 < low < 0 < high < 0.02


def test_limits_of_the_difference_hold_the_sure_ones_of_one_look() -> None:
    found = Shadow(0.01).add_rows(2000, 200).add_labels(np.repeat([1, -1, 0], [60, 30, 10]))
    value, low, high = found.difference
    assert value == pytest.approx(0.3 * 0.1)
    once = stats.binomtest(60, 90).proportion_ci(0.95, "exact")
    assert low < (2 * once.low - 1) * 0.9 * 0.1
    assert high > (2 * once.high - 1) * 0.9 * 0.1
    assert high < 0.09
    assert math.isnan(Shadow().difference[0])


def test_past_the_budget_no_label_counts_and_a_verdict_needs_none() -> None:
    found = Shadow(0.01, budget=10).add_rows(100, 50).add_labels(np.tile([1, -1], 40))
    assert found.labels == 10
    assert found.budget_spent
    assert comparison_summary(found)["next"] == "stop"
    assert "budget of 10 labels" in comparison_summary(found)["because"]
    won = Shadow(0.01, budget=10).add_rows(100, 50).add_labels(np.ones(40, int))
    assert won.decided == "undecided"
    assert won.budget_spent
    more = Shadow(0.01, budget=40).add_rows(100, 50).add_labels(np.ones(20, int))
    assert more.decided == "better"
    assert not more.budget_spent


def test_how_many_more_are_needed_is_about_what_it_takes() -> None:
    rng = np.random.default_rng(6)
    begun = Shadow(0.02).add_rows(400, 40).add_labels(np.r_[np.tile([1, -1], 18), [1, 1, 1, 1]])
    more = rows_needed(begun)
    assert more is not None
    assert more["rows"] == pytest.approx(more["labels"] * 10, abs=10)
    settled = 0
    for _ in range(30):
        p = stats.beta(23, 19).rvs(random_state=rng)
        after = begun.add_rows(more["rows"], more["labels"])
        after = after.add_labels(np.where(rng.random(more["labels"]) < p, 1, -1))
        settled += after.decided != "undecided"
    assert settled >= 15
    assert rows_needed(Shadow().add_rows(10, 2)) is None


@pytest.mark.parametrize(
    ("task", "label", "first", "second", "sign"),
    [
        ("text-classification", "a", "a", "b", 1),
        ("text-classification", "a", "c", "b", 0),
        ("text-classification", "a", None, "a", -1),
        ("text-classification", "3", "3", "4", 1),
        ("image-classification", "cat", "dog", "cat", -1),
        ("text-classification", ["x", "y"], ["x"], ["z"], 1),
        ("text-classification", ["x", "y"], ["x"], ["x", "y"], -1),
        ("text-classification", [], ["x"], [], -1),
        ("text-classification", 3.5, 3.4, 3.0, 1),
        ("text-classification", 3.5, 3.0, 4.0, 0),
        ("text-classification", 3.5, None, 100.0, -1),
        ("text-classification", 3, 3.0, 2.0, 1),
        ("token-classification", ["B-P", "O"], ["B-P", "O"], ["O", "O"], 1),
        ("token-classification", ["B-P", "O"], ["O"], ["B-P", "O"], -1),
    ],
)
def test_whose_answer_is_nearer(
    task: str, label: object, first: object, second: object, sign: int
) -> None:
    assert closer_prediction(task, label, first, second) == sign
    assert closer_prediction(task, label, second, first) == -sign


def test_of_texts_the_nearer_has_the_longer_common_sequence() -> None:
    pytest.importorskip("rouge_score", reason="the metrics of texts")
    assert closer_prediction("seq2seq", "the cat sat", "the cat sat", "a dog") == 1
    assert closer_prediction("causal-lm", "the cat sat", None, "the cat") == -1


def test_the_hash_parts_users_by_share_stays_and_differs_by_salt() -> None:
    users = [f"user-{i}" for i in range(4000)]
    one = [in_challenger(user, "a", 0.3) for user in users]
    assert one == [in_challenger(user, "a", 0.3) for user in users]
    assert abs(np.mean(one) - 0.3) < 4 * math.sqrt(0.21 / 4000)
    two = [in_challenger(user, "b", 0.3) for user in users]
    # Who was together under one salt is not under another.
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.06
    assert not any(in_challenger(user, "a", 0.0) for user in users[:50])
    assert all(in_challenger(user, "a", 1.0) for user in users[:50])
    long = "a long name of an experiment, which many experiments of a team begin with: "
    three, four = ([in_challenger(user, long + end, 0.3) for user in users] for end in "xy")
    assert abs(np.corrcoef(three, four)[0, 1]) < 0.06


def _arms(one: Arms) -> Arms:
    return Arms.from_json(json.loads(json.dumps(one.to_json())))


def test_arms_at_once_and_in_parts_are_the_same() -> None:
    rng = np.random.default_rng(2)
    arm = rng.random(3000) < 0.4
    value = rng.exponential(3, 3000) * (rng.random(3000) < 0.3) * (1 + 2 * arm)
    whole = Arms(0.4).add_users(arm).add_outcomes(arm, value)
    step = Arms(0.4)
    for start in range(0, 3000, 130):
        part = slice(start, start + 130)
        step = _arms(step.add_users(arm[part])).add_outcomes(arm[part], value[part])
    assert step.most == whole.most == value[:200].max()
    assert step.sums.users == whole.sums.users
    assert sum(step.sums.users) == 2800
    assert step.sums.effect == pytest.approx(whole.sums.effect)
    assert step.decided == whole.decided == "better"
    assert step.decided_at == whole.decided_at
    assert step.held == whole.held == (value[200:] > value[:200].max()).sum()


def test_arms_of_equal_models_end_in_equivalent_and_worse_ones_in_worse() -> None:
    rng = np.random.default_rng(0)
    arm = rng.random(150_000) < 0.5
    click = (rng.random(150_000) < 0.05).astype(float)
    assert Arms(margin=0.01, most=1.0).add_outcomes(arm, click).decided == "equivalent"
    fewer = (rng.random(40_000) < np.where(arm[:40_000], 0.03, 0.06)).astype(float)
    found = Arms(margin=0.01, most=1.0).add_outcomes(arm[:40_000], fewer)
    assert found.decided == "worse"
    value, low, high = found.difference
    assert low < -0.03 < high < 0
    assert value == pytest.approx(fewer[arm[:40_000]].mean() - fewer[~arm[:40_000]].mean())


def test_wrong_shares_of_users_take_the_verdict_away() -> None:
    rng = np.random.default_rng(0)
    arm = rng.random(9000) < 0.56
    found = Arms(most=1.0).add_users(arm).add_outcomes(arm, arm.astype(float))
    assert found.decided == "better"
    assert found.skewed
    said = comparison_summary(found)
    assert said["verdict"] == "undecided"
    assert said["next"] == "go on"
    assert "instead of the requested 50 %" in said["because"]
    assert not Arms().add_users(rng.random(9000) < 0.5).skewed


def test_a_scale_that_nobody_has_shown_yet_is_waited_for() -> None:
    arm = np.tile([True, False], 200)
    found = Arms().add_outcomes(arm, np.zeros(400))
    assert found.most is None
    assert found.tried == 400
    assert "not compared yet" in comparison_summary(found)["because"]
    after = found.add_outcomes(arm, np.r_[[5.0], np.full(399, 7.0)])
    assert after.most == 5.0
    assert after.held == 399
    assert after.sums.rows == 399


def test_what_is_told_is_plain_json_with_its_words() -> None:
    begun = Shadow(0.01).add_rows(900, 90).add_labels(np.r_[np.tile([1, -1], 16), 0, 0, 1, 1])
    begun = begun.exclude_label("labelled by a model", 1).exclude_label("labelled by a model", -1)
    said = json.loads(json.dumps(comparison_summary(begun), allow_nan=False))
    assert said["verdict"] == "undecided"
    assert said["next"] == "go on"
    assert said["apart"] == [
        {"because": "labelled by a model", "challenger_right": 1, "shown_right": 1, "neither": 0}
    ]
    assert said["agreement"]["value"] == pytest.approx(0.9)
    assert "more labels of such rows would decide" in said["because"]
    empty = json.loads(json.dumps(comparison_summary(Arms()), allow_nan=False))
    assert empty["difference"]["value"] is None
