from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from holdfast.core.errors import Defect
from holdfast.core.records import Outputs
from holdfast.metrics.comparison import compare


def outputs(right: np.ndarray, groups=None) -> Outputs:
    n = len(right)
    labels = np.arange(n) % 2
    predictions = np.where(right, labels, 1 - labels)
    return Outputs(np.arange(n), labels, np.eye(2)[predictions], np.ones(n), groups)


def pair(n: int, only_1: int, only_2: int, groups=None) -> tuple[Outputs, Outputs]:
    first, second = np.ones(n, dtype=bool), np.ones(n, dtype=bool)
    first[:only_2], second[only_2 : only_2 + only_1] = False, False
    return outputs(first, groups), outputs(second, groups)


def test_a_clear_lead_is_said_with_its_points() -> None:
    result = compare(*pair(500, 60, 10))
    assert result["difference"].value == pytest.approx(0.1)
    assert result["difference"].low > 0
    assert result["p_value"] < 0.001
    assert "the fine-tuned model is better by 10.0 points" in result["because"]


def test_the_other_way_round_names_the_other_model() -> None:
    result = compare(*pair(500, 10, 60))
    assert "the linear probe is better by 10.0 points" in result["because"]


def test_an_even_pair_cannot_be_told_apart() -> None:
    result = compare(*pair(200, 12, 10))
    oracle = stats.binomtest(10, 22).pvalue - stats.binom.pmf(10, 22, 0.5)
    assert result["p_value"] == pytest.approx(oracle)
    assert "show no difference" in result["because"]
    assert result["difference"].low < 0 < result["difference"].high


def test_a_model_against_itself_is_no_difference() -> None:
    first, _ = pair(80, 8, 4)
    result = compare(first, first)
    assert result["difference"].value == 0
    assert result["p_value"] == 1.0


def test_copies_in_groups_are_not_new_evidence() -> None:
    first, second = pair(400, 40, 16)
    groups = np.array([f"g{i // 8}" for i in range(400)])
    grouped = compare(*pair(400, 40, 16, groups))
    rows = compare(first, second)
    assert rows["p_value"] < 0.01 < grouped["p_value"]
    assert "groups" in grouped["difference"].note


def test_groups_without_a_difference_are_no_proof_that_there_is_none() -> None:
    """18 rows that both models predict alike had an interval of 0.0 to 0.0 points."""
    groups = np.array([f"g{i // 2}" for i in range(18)])
    right = np.arange(18) >= 4
    same = compare(outputs(right, groups), outputs(right, groups))
    # The interval of as many single rows as there are groups, with as many of them right.
    alone = np.arange(9) < 7
    oracle = compare(outputs(alone), outputs(alone))["difference"]
    assert (same["difference"].low, same["difference"].high) == (oracle.low, oracle.high)
    assert same["difference"].low < -0.1
    assert same["p_value"] == 1.0
    everything = compare(outputs(np.ones(18, bool), groups), outputs(np.zeros(18, bool), groups))
    assert everything["difference"].low < 1.0
    assert everything["p_value"] == pytest.approx(stats.binom.pmf(0, 9, 0.5))


def test_no_rows_and_one_group_claim_nothing() -> None:
    assert compare(*pair(0, 0, 0))["difference"].value is None
    one = compare(*pair(20, 4, 1, np.array(["a"] * 20)))
    assert one["p_value"] is None
    assert one["difference"].low is None


def test_different_rows_are_refused() -> None:
    first, second = pair(20, 2, 1)
    moved = Outputs(second.rows + 1, second.labels, second.logits, second.losses)
    with pytest.raises(Defect, match="same rows"):
        compare(first, moved)
