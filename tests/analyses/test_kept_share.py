"""What is kept of a score: against resampling by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, t

from holdfast.analyses.compare.verdict import judge_pairs, pair_rows
from holdfast.analyses.distillation.analysis import agreement, retained_share


def test_the_share_of_right_answers_is_their_ratio_with_a_resampled_interval() -> None:
    rng = np.random.default_rng(0)
    labels = ["a"] * 300
    first = np.where(rng.random(300) < 0.9, "a", "b").tolist()
    second = [x if rng.random() < 0.93 else "b" for x in first]
    pairs = pair_rows("class", labels, first, second)
    found = retained_share(pairs, judge_pairs(pairs.gap, 0.01), np.random.default_rng(1))
    right = [np.array(one) == "a" for one in (first, second)]
    assert found["value"] == pytest.approx(right[1].sum() / right[0].sum())
    drawn = np.random.default_rng(2).integers(0, 300, (4000, 300))
    ratios = right[1][drawn].sum(1) / right[0][drawn].sum(1)
    limits = np.quantile(ratios, [0.025, 0.975])
    assert [found["low"], found["high"]] == pytest.approx(limits, abs=0.006)


def test_of_another_score_the_interval_is_that_of_the_difference() -> None:
    rng = np.random.default_rng(0)
    labels = [["a", "b"]] * 60
    first = [["a", "b"] if rng.random() < 0.9 else ["a"] for _ in labels]
    second = [one if rng.random() < 0.8 else [] for one in first]
    pairs = pair_rows("several", labels, first, second)
    judged = judge_pairs(pairs.gap, 0.01)
    found = retained_share(pairs, judged, rng)
    assert found["value"] == pytest.approx(pairs.second / pairs.first)
    assert found["low"] == pytest.approx(1 - judged.high / pairs.first)
    assert found["low"] < found["value"] < found["high"]


def test_where_both_are_right_on_the_same_rows_the_share_is_not_certain() -> None:
    """Resampling gave 100.0 to 100.0 % of nine rows."""
    first = ["a"] * 8 + ["b"]
    pairs = pair_rows("class", ["a"] * 9, first, first)
    judged = judge_pairs(pairs.gap, 0.01)
    found = retained_share(pairs, judged, np.random.default_rng(0))
    assert found["value"] == 1
    assert found["high"] - 1 == pytest.approx(1 - found["low"])
    # As wide as the paired difference; with nine equal pairs it may hide one in four.
    assert found["low"] == pytest.approx(1 - judged.high / (8 / 9))
    assert found["low"] < 0.8


def test_of_an_error_no_share_is_kept() -> None:
    numbers = list(range(30))
    pairs = pair_rows("number", numbers, [n + 1 for n in numbers], [n + 2 for n in numbers])
    judged = judge_pairs(pairs.gap, 0.01)
    found = retained_share(pairs, judged, np.random.default_rng(0))
    assert found["value"] is None
    assert "error" in found["why"]


def test_agreement_is_the_share_of_equal_answers() -> None:
    found = agreement("class", list("aabbaabbab"), list("aabbaabbba"))
    limits = binomtest(8, 10).proportion_ci(method="wilson")
    assert found["value"] == 0.8
    assert [found["low"], found["high"]] == pytest.approx([limits.low, limits.high])
    assert agreement("several", [["a", "b"]], [["b", "a"]])["value"] == 1
    assert agreement("tags", [["A", "B"]], [["B", "A"]])["value"] == 0
    assert agreement("number", [1.0, 2, 3], [2.0, 4, 6])["value"] == pytest.approx(1)
    assert agreement("class", [], [])["value"] is None


def test_rows_of_groups_count_as_their_groups() -> None:
    """Twelve authors, of each of whom a model has all rows or none."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 20)
    lost = np.isin(groups, [2, 5, 9])
    first = np.where(rng.random(240) < 0.9, "a", "b").tolist()
    second = np.where(lost, "b", first).tolist()
    pairs = pair_rows("class", ["a"] * 240, first, second)
    judged = judge_pairs(pairs.gap, 0.01, groups)
    wide = retained_share(pairs, judged, np.random.default_rng(1), groups)
    narrow = retained_share(pairs, judged, np.random.default_rng(1))
    assert wide["value"] == narrow["value"]
    right = [np.array(one) == "a" for one in (first, second)]
    left_out = [right[1][groups != g].sum() / right[0][groups != g].sum() for g in range(12)]
    error = np.sqrt(11 / 12 * ((left_out - np.mean(left_out)) ** 2).sum())
    half = t.ppf(0.975, 11) * error
    found = [wide["value"] - wide["low"], wide["high"] - wide["value"]]
    assert found == pytest.approx([half, half], rel=0.1)
    assert wide["high"] - wide["low"] > 2 * (narrow["high"] - narrow["low"])
    same = agreement("class", first, second, groups)
    alone = agreement("class", first, second)
    assert same["value"] == alone["value"]
    assert same["high"] - same["low"] > 2 * (alone["high"] - alone["low"])


def test_of_one_group_there_is_no_interval_and_a_reason() -> None:
    found = agreement("class", list("aab"), list("aaa"), np.zeros(3, dtype=np.int64))
    assert found["value"] == pytest.approx(2 / 3)
    assert found["low"] is found["high"] is None
    assert "one group" in found["why"]
