from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from holdfast.core.errors import SplitError
from holdfast.data.table import HeldOut, Splits, Table, TrainSplit, ValidSplit
from holdfast.duplicates.duplicates import find_duplicates
from holdfast.split.split_table import refuse_leaks, refuse_shared_copies, split_table

Make = Callable[..., Table]
BASE = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu"


def splits_of(train: Table, valid: Table, test: Table) -> Splits:
    return Splits(TrainSplit(train), ValidSplit(valid), HeldOut(test), records=None)


def test_a_sound_division_passes_and_its_test_rows_stay_closed(make_table: Make) -> None:
    texts = [f"text {chr(97 + at)} of the table" for at in range(20)]
    splits = split_table(make_table(texts, ["x", "y"] * 10), seed=0)
    refuse_leaks(splits)
    assert len(splits.test.open()) == len(splits.test)


def test_an_exact_copy_on_two_sides_is_refused_by_row(make_table: Make) -> None:
    one = make_table(["good phone", "bad phone"], ["x", "y"])
    other = make_table(["fine", "Bad  PHONE!"], ["x", "y"], rows=[7, 9])
    third = make_table(["odd", "even"], ["x", "y"])
    with pytest.raises(SplitError, match="row 1 of train, row 9 of valid"):
        refuse_leaks(splits_of(one, other, third))
    with pytest.raises(SplitError, match="row 1 of train, row 9 of test"):
        refuse_leaks(splits_of(one, third, other))
    refuse_leaks(splits_of(one, third, third.take([])))


def test_a_group_on_two_sides_is_refused(make_table: Make) -> None:
    tables = [
        make_table([f"{name} one", f"{name} two"], ["x", "y"], groups=[name, group])
        for name, group in (("a", "shared"), ("b", "other"), ("c", "shared"))
    ]
    with pytest.raises(SplitError, match=r"share 1 groups.*'shared'"):
        refuse_leaks(splits_of(*tables))


def test_a_verified_near_copy_on_two_sides_is_refused_but_across_a_cut() -> None:
    copies = find_duplicates([BASE, BASE.replace("gamma", "omega"), "something else"])
    names = ["train", "valid", "test"]
    refuse_shared_copies(copies, np.array([0, 0, 1], dtype=np.int8), names)
    refuse_shared_copies(copies, np.array([0, -1, 1], dtype=np.int8), names)
    apart = np.array([0, 2, 1], dtype=np.int8)
    with pytest.raises(SplitError, match="train and test: share 1 pair of near-duplicates"):
        refuse_shared_copies(copies, apart, names)
    refuse_shared_copies(replace(copies, groups=np.array([0, 1, 2])), apart, names)
