"""Class names held against the rows of their classes."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.quality.names import compare_names


def planted(classes: int, rows: int, seed: int, noise: float = 0.7):
    """Rows around a centre each, and names at the centres; all moved away from the origin, names
    and rows by another way each, as short texts and long ones are."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(classes, 16))
    labels = np.arange(rows) % classes
    vectors = centres[labels] + noise * random.normal(size=(rows, 16)) + 3 * random.normal(size=16)
    names = centres + noise * random.normal(size=(classes, 16)) + 3 * random.normal(size=16)
    return vectors, labels, names


@pytest.mark.parametrize("classes", [2, 6, 40])
def test_true_names_agree_and_swapped_ones_do_not(classes: int) -> None:
    rows, labels, names = planted(classes, 120, classes)
    judged = compare_names(rows, labels, names)
    assert judged.agree
    assert not judged.contradicted
    assert judged.recall > 2 / 3 > judged.chance
    assert judged.chance == pytest.approx(1 / classes, abs=0.1)
    swapped = compare_names(rows, labels, np.roll(names, 1, axis=0))
    assert not swapped.agree
    assert len(swapped.contradicted) >= classes // 4


def test_names_without_a_meaning_pass_as_often_as_the_level_says() -> None:
    passed = 0
    for seed in range(60):
        rows, labels, _ = planted(6, 60, seed)
        nothing = np.random.default_rng(1000 + seed).normal(size=(6, 16))
        labels = np.random.default_rng(2000 + seed).permutation(labels)
        passed += compare_names(rows, labels, nothing).agree
    # 5 % of 60 are 3; 9 and more would come by chance once in 400.
    assert passed < 9


def test_one_wrong_name_is_the_one_that_is_contradicted() -> None:
    rows, labels, names = planted(12, 96, 3, noise=0.4)
    names[4] = -3 * (names[4] - names.mean(axis=0)) + names.mean(axis=0)
    judged = compare_names(rows, labels, names)
    assert judged.agree
    assert judged.contradicted == (4,)


def test_a_class_without_rows_says_nothing() -> None:
    rows, labels, names = planted(5, 50, 7)
    some = labels != 2
    judged = compare_names(rows[some], labels[some], names)
    assert 2 not in judged.contradicted
