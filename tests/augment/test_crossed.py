"""Texts crossed of two others."""

from __future__ import annotations

import numpy as np

from holdfast.augment.synthesize import crossed

TEXTS = ["a b c d", "e f g", "h i j k l"]


def test_each_is_a_beginning_and_an_end_of_two_texts() -> None:
    made = crossed(TEXTS, 30, np.random.default_rng(0))
    assert len(made) == len(set(made)) == 30
    assert not set(made) & set(TEXTS)
    whole = {
        " ".join([*one.split()[:i], *other.split()[j:]])
        for one in TEXTS
        for other in TEXTS
        if one != other
        for i in range(1, len(one.split()) + 1)
        for j in range(len(other.split()))
    }
    assert set(made) <= whole
    assert made == crossed(TEXTS, 30, np.random.default_rng(0))


def test_where_there_are_no_more_there_are_fewer() -> None:
    assert len(crossed(["a b", "c"], 50, np.random.default_rng(0))) == 4
    assert crossed(["a b"], 5, np.random.default_rng(0)) == []
