from __future__ import annotations

import itertools

import numpy as np
import pytest

from holdfast.core.errors import Defect
from holdfast.recipe import Recipe, as_settings, override
from holdfast.search.rules.portfolio import LEARNT, greedy, portfolio

TEXTS = {"task": "text-classification", "train_rows": 160, "classes": 2, "model": "small"}


def test_of_rows_like_those_it_was_learned_on_it_names_settings_that_a_recipe_takes() -> None:
    found = portfolio(TEXTS)
    assert found[0] == {}
    assert found[1:] == list(LEARNT)
    for one in found:
        override(Recipe(task="text-classification"), as_settings(one))
    found[-1]["train.epochs"] = 99
    assert portfolio(TEXTS) != found


@pytest.mark.parametrize(
    "other",
    [
        {"task": "seq2seq"},
        {"classes": 0},
        {"model": "base"},
        {"train_rows": 20},
        {"train_rows": 5000},
    ],
)
def test_of_what_it_was_not_learned_on_it_says_the_default_alone(other: dict[str, object]) -> None:
    assert portfolio({**TEXTS, **other}) == [{}]


def test_each_setting_adds_most_to_the_best_of_those_before() -> None:
    rng = np.random.default_rng(0)
    gains = rng.normal(-0.02, 0.02, (12, 3))
    gains[0] = 0
    found = greedy(gains, 4)
    assert found[0] == 0
    for size in range(1, len(found)):
        before = gains[found[:size]].max(axis=0)
        worth = [np.maximum(before, one).mean() for one in gains]
        assert found[size] == int(np.argmax(worth))
    # As good as any of its size, for two settings.
    pairs = [gains[[0, k]].max(axis=0).mean() for k in range(1, 12)]
    assert gains[found[:2]].max(axis=0).mean() == pytest.approx(max(pairs))
    every = [gains[list(some)].max(axis=0).mean() for some in itertools.combinations(range(12), 4)]
    assert gains[found].max(axis=0).mean() >= (1 - 1 / np.e) * max(every)


def test_where_nothing_is_better_than_the_default_it_stands_alone() -> None:
    assert greedy(np.array([[0.0, 0.0], [-0.1, 0.0], [-0.1, -0.2]]), 3) == [0]
    with pytest.raises(Defect):
        greedy(np.zeros((0, 3)), 2)
