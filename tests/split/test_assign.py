from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast.core.errors import SplitError
from holdfast.split.assign import assign, class_targets

THREE = (0.7, 0.15, 0.15)
NAMES = tuple("abcdefgh")


def counts(labels: np.ndarray, side: np.ndarray, sides: int) -> np.ndarray:
    table = np.zeros((labels.max() + 1, sides), dtype=int)
    np.add.at(table, (labels, side), 1)
    return table


def keys(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**63, n).astype(np.uint64)


@given(
    st.lists(st.integers(4, 400), min_size=1, max_size=8),
    st.sampled_from([THREE, (0.82, 0.18), (0.6, 0.2, 0.2), (0.5, 0.25, 0.25)]),
)
@example([4, 4, 4, 4], THREE)
def test_targets_are_within_one_row_and_sum_up(
    totals: list[int], shares: tuple[float, ...]
) -> None:
    targets = class_targets(np.array(totals), shares)
    wanted = np.outer(totals, shares)
    assert (targets.sum(axis=1) == totals).all()
    assert (targets >= 1).all()
    assert (np.abs(targets - wanted) < np.where(wanted < 1, 1.7, 1)).all()
    # Of a small class each side gets one row, whatever its share.
    forced = np.maximum(1 - wanted, 0).sum()
    apart = np.abs(targets.sum(axis=0) - wanted.sum(axis=0))
    assert (apart < 2 + len(totals) / 4 + forced).all()


@settings(max_examples=60)
@given(st.lists(st.integers(0, 3), min_size=40, max_size=400))
def test_single_rows_are_stratified_to_within_one_row_per_class(drawn: list[int]) -> None:
    labels = np.array([0, 1, 2, 3] * 7 + drawn)
    side = assign(np.arange(len(labels)), labels, keys(len(labels)), THREE, NAMES)
    wanted = np.outer(np.bincount(labels), THREE)
    assert (np.abs(counts(labels, side, 3) - wanted) < 1).all()


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 2)), min_size=60, max_size=250),
    st.integers(0, 5),
)
def test_groups_of_one_class_are_stratified_to_within_one_group(
    drawn: list[tuple[int, int]], seed: int
) -> None:
    units = [(1, c) for c in range(3) for _ in range(9)] + drawn
    of_row = np.repeat(np.arange(len(units)), [size for size, _ in units])
    labels = np.array([label for size, label in units for _ in range(size)])
    order = np.random.default_rng(seed).integers(0, 2**63, len(units)).astype(np.uint64)
    side = assign(of_row, labels, order, THREE, NAMES)
    wanted = np.outer(np.bincount(labels), THREE)
    largest = np.array([max(s for s, label in units if label == c) for c in range(3)])
    assert (np.abs(counts(labels, side[of_row], 3) - wanted) <= largest[:, None]).all()


def test_rows_of_mixed_groups_stay_together_near_their_fractions() -> None:
    rng = np.random.default_rng(1)
    of_row = np.sort(rng.integers(0, 300, 3000))
    of_row = np.unique(of_row, return_inverse=True)[1]
    labels = rng.integers(0, 4, 3000)
    side = assign(of_row, labels, keys(of_row.max() + 1), THREE, NAMES)[of_row]
    wanted = np.outer(np.bincount(labels), THREE)
    assert (np.abs(counts(labels, side, 3) - wanted) <= 10).all()


def test_a_class_with_three_units_stands_on_every_side() -> None:
    labels = np.array([0] * 100 + [1] * 3)
    side = assign(np.arange(103), labels, keys(103), THREE, NAMES)
    assert sorted(side[100:].tolist()) == [0, 1, 2]


def test_a_class_in_three_large_groups_stands_on_every_side() -> None:
    of_row = np.repeat(np.arange(6), 20)
    labels = np.repeat([0, 0, 0, 1, 1, 1], 20)
    side = assign(of_row, labels, keys(6), THREE, NAMES)
    assert sorted(side[:3].tolist()) == sorted(side[3:].tolist()) == [0, 1, 2]


def test_a_class_with_fewer_units_than_sides_is_refused_by_name() -> None:
    labels = np.array([0] * 50 + [1] * 40)
    of_row = np.array([*range(50), *([50] * 20), *([51] * 20)])
    with pytest.raises(SplitError, match=r"'b'.*2 independent units"):
        assign(of_row, labels, keys(52), THREE, NAMES)


def test_fewer_units_than_sides_are_no_matter_of_classes() -> None:
    """Leaving a class out, or merging some, would mend nothing."""
    with pytest.raises(SplitError, match="the rows: have 2 independent units") as raised:
        assign(np.array([0, 0, 1]), np.array([0, 1, 0]), keys(2), THREE, NAMES)
    assert "data.rare" not in raised.value.remedy
    with pytest.raises(SplitError, match="the rows: have 1 independent unit "):
        assign(np.zeros(5, np.int64), np.zeros(5, np.int64), keys(1), THREE, NAMES)


def test_groups_that_hold_every_class_stand_one_on_each_side() -> None:
    of_row = np.repeat(np.arange(3), 2)
    side = assign(of_row, np.array([0, 1] * 3), keys(3), THREE, NAMES)
    assert sorted(side.tolist()) == [0, 1, 2]


def test_classes_that_cannot_all_be_on_every_side_are_refused() -> None:
    # b needs units 0, 1, 2 apart and c needs 0, 1, 3 apart: so 2 and 3 share a side, and d, in
    # units 2, 3 and 4, reaches two sides at most.
    held = {0: "abc", 1: "abc", 2: "abd", 3: "acd", 4: "ad"}
    of_row = np.array([unit for unit, classes in held.items() for _ in classes])
    labels = np.array(["abcd".index(c) for classes in held.values() for c in classes])
    with pytest.raises(SplitError, match="cannot be present in every split"):
        assign(of_row, labels, keys(5), THREE, NAMES)
