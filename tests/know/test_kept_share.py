"""What is kept of a score: against resampling by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from holdfast.know.compare.pairs import paired
from holdfast.know.compare.verdict import judge_pairs
from holdfast.know.kept_share import agreement, kept_share


def test_the_share_of_right_answers_is_their_ratio_with_a_resampled_interval() -> None:
    rng = np.random.default_rng(0)
    labels = ["a"] * 300
    first = np.where(rng.random(300) < 0.9, "a", "b").tolist()
    second = [x if rng.random() < 0.93 else "b" for x in first]
    pairs = paired("class", labels, first, second)
    found = kept_share(pairs, judge_pairs(pairs.gap, 0.01), np.random.default_rng(1))
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
    pairs = paired("several", labels, first, second)
    judged = judge_pairs(pairs.gap, 0.01)
    found = kept_share(pairs, judged, rng)
    assert found["value"] == pytest.approx(pairs.second / pairs.first)
    assert found["low"] == pytest.approx(1 - judged.high / pairs.first)
    assert found["low"] < found["value"] < found["high"]


def test_of_an_error_no_share_is_kept() -> None:
    numbers = list(range(30))
    pairs = paired("number", numbers, [n + 1 for n in numbers], [n + 2 for n in numbers])
    judged = judge_pairs(pairs.gap, 0.01)
    found = kept_share(pairs, judged, np.random.default_rng(0))
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
