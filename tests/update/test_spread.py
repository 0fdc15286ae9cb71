"""How much answers differ: of people, of a model, before and after."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from holdfast.plugins.update.findings import distinct_pairs, effective_classes, measure_spread


def test_classes_in_effect_are_the_exponential_of_the_entropy() -> None:
    labels = ["a"] * 6 + ["b"] * 3 + ["c"]
    assert effective_classes(labels) == pytest.approx(np.exp(stats.entropy([6, 3, 1])))
    assert effective_classes([["a", "b"], ["a"]]) == pytest.approx(np.exp(stats.entropy([2, 1])))
    assert effective_classes([]) is None


def test_a_model_that_says_one_thing_is_told_and_one_like_people_is_not() -> None:
    people = ["a", "b", "c", "d"] * 30
    alike = measure_spread(people, [], people[:40], generated=False, seed=0)
    assert alike.finding() is None
    narrow = measure_spread(people, [], ["a"] * 40, generated=False, seed=0)
    found = narrow.finding()
    assert found is not None
    assert "classes in effect: 1 compared with" in found.because
    assert narrow.after is not None
    assert narrow.before is not None
    assert narrow.after < narrow.before == 4
    # Of a few rows nothing is said.
    assert measure_spread(people, [], ["a"] * 5, generated=False, seed=0).finding() is None


def test_written_answers_go_by_their_pairs_of_words() -> None:
    assert distinct_pairs(["a b c", "a b d"]) == 0.75
    assert distinct_pairs(["one", ""]) is None
    texts = [f"w{i} is w{i + 1} and w{i + 2}" for i in range(60)]
    found = measure_spread(texts, [], ["it is so and so"] * 30, generated=True, seed=0).finding()
    assert found is not None
    assert "pairs of words" in found.because
