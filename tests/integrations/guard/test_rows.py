"""Which rows are looked at, and which are held out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.errors import DataError
from holdfast.plugins.trainers.rows import (
    default_evaluations,
    evaluation_steps,
    held_out_positions,
    hold_out,
    row_key,
    training_sample,
)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 12), min_size=2, max_size=60), st.floats(0.05, 0.9))
def test_copies_stay_on_one_side_and_the_share_is_kept(groups: list[int], share: float) -> None:
    keys = [str(group).encode() for group in groups]
    held = set(held_out_positions(keys, share, 0).tolist())
    inside = {groups[i] for i in held}
    assert inside.isdisjoint(groups[i] for i in range(len(groups)) if i not in held)
    assert len(held) >= share * len(groups)
    largest = max(groups.count(group) for group in set(groups))
    assert len(held) < share * len(groups) + largest


def test_a_row_with_another_label_is_a_copy() -> None:
    one = {"input_ids": [1, 2], "label": 0}
    assert row_key(one) == row_key({"label": 1, "input_ids": [1, 2]})
    assert row_key(one) != row_key({"input_ids": [1, 3], "label": 0})
    long = torch.arange(5000)
    other = long.clone()
    other[2500] = 7
    assert row_key((long, 1)) == row_key((long, 0)) != row_key((other, 1))


def test_rows_of_a_plain_list_are_held_out_too() -> None:
    kept, held = hold_out([([i], i % 2) for i in range(20)], 0.2, 0)
    assert (len(kept), len(held)) == (16, 4)


def test_nothing_but_copies_cannot_be_divided() -> None:
    with pytest.raises(DataError, match="groups of duplicates"):
        hold_out([{"x": 1, "label": i} for i in range(9)], 0.3, 0)


def test_the_probe_is_as_large_as_the_evaluation_rows_and_fixed() -> None:
    one = training_sample(1000, 80, None, 3)
    assert one.tolist() == sorted(set(training_sample(1000, 80, None, 3).tolist()))
    assert len(one) == 80
    assert len(training_sample(1000, 80, 300, 3)) == 300
    assert len(training_sample(40, 80, None, 3)) == 40
    assert not np.array_equal(one, training_sample(1000, 80, None, 4))


@pytest.mark.parametrize(
    ("trained", "epochs", "evaluated", "wanted"),
    [
        # Ten evaluations of 300 rows forward are 1,000 rows trained: a tenth of 10,000.
        (10_000, 1, 300, 10),
        (10_000, 1, 3000, 3),
        (100_000, 1, 300, 20),
        (1200, 3, 200, 3),
        (1200, 7.5, 200, 8),
        (1200, 40, 200, 20),
    ],
)
def test_evaluations_cost_a_tenth_of_the_training_or_are_few(
    trained: float, epochs: float, evaluated: int, wanted: int
) -> None:
    assert default_evaluations(trained, epochs, evaluated) == wanted


@pytest.mark.parametrize(("steps", "wanted"), [(1, 20), (7, 3), (100, 20), (3, 4)])
def test_the_last_step_is_always_looked_at(steps: int, wanted: int) -> None:
    at = evaluation_steps(steps, wanted)
    assert max(at) == steps
    assert min(at) >= 1
    assert len(at) <= wanted
