"""Which answers to changed rows are other ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from holdfast.analyses.robustness.analysis import flipped_answers
from holdfast.contract.predictions import Predictions
from holdfast.data.table import Table


def test_a_number_that_moves_by_less_than_the_usual_error_is_the_same_answer(
    make_table: Callable[..., Table],
) -> None:
    errors = np.array([-1.0, 0.5, 2.0])
    table = make_table(["a", "b", "c"], ["x", "y", "x"])
    told = Predictions("test", table, errors**2, predictions=("10", "20.5", "30"), errors=errors)
    # The median error is 1.
    assert flipped_answers(told, [10.9, 21.6, 30.0]).tolist() == [False, True, False]


def test_another_class_is_another_answer(make_table: Callable[..., Table]) -> None:
    table = make_table(["a", "b"], ["x", "y"])
    told = Predictions("test", table, np.zeros(2), np.zeros(2, dtype=bool), ("x", "y"))
    assert flipped_answers(told, ["x", "x"]).tolist() == [False, True]
