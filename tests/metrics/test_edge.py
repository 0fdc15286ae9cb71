"""Intervals of numbers at an end of their range, where a resample shows no spread."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from holdfast.metrics.resample import edge
from holdfast.metrics.text_scores import overlap_scores
from holdfast.tasks.generation.token_scores import TokenOutputs, score_tokens


@pytest.mark.parametrize("n", [1, 3, 33, 400])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_limit_is_clopper_and_pearsons(n: int, level: float) -> None:
    whole = binomtest(n, n).proportion_ci(level, method="exact")
    none = binomtest(0, n).proportion_ci(level, method="exact")
    assert edge(1.0, (0.0, 1.0), n, level) == pytest.approx((whole.low, 1.0))
    assert edge(0.0, (0.0, 1.0), n, level) == pytest.approx((0.0, none.high))
    low, high = edge(1.0, (-1.0, 1.0), n, level)
    assert (low, high) == pytest.approx((2 * whole.low - 1, 1.0))


def test_nothing_that_counts_leaves_the_whole_range() -> None:
    assert edge(1.0, (0.0, 1.0), 0) == (0.0, 1.0)


def test_six_texts_without_a_right_word_exclude_little() -> None:
    found = overlap_scores(["a b c"] * 6, ["x y z"] * 6)["rouge_l"]
    assert found.value == found.low == 0.0
    assert found.high == pytest.approx(binomtest(0, 6).proportion_ci(0.95, method="exact").high)


def test_tokens_that_are_all_right_have_a_limit_by_their_rows() -> None:
    n = 20
    outputs = TokenOutputs(np.arange(n), np.full(n, 0.1), np.full(n, 50), np.full(n, 50.0))
    found = score_tokens(outputs).metrics["token_accuracy"]
    assert found.low == pytest.approx(binomtest(n, n).proportion_ci(0.95, method="exact").low)
