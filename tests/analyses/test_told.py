"""What a model says of the rows of a side, and of some of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from holdfast.contract.predictions import Predictions
from holdfast.data.table import Table


def _told(table: Table) -> Predictions:
    n = len(table)
    chances = np.stack([np.linspace(0, 1, n), 1 - np.linspace(0, 1, n)], axis=1)
    wrong = np.arange(n) % 2 == 1
    return Predictions(
        "valid", table, np.arange(n) / 10, wrong, tuple("abcd"[:n]), chances, ("x", "y")
    )


def test_some_rows_keep_all_that_was_said_of_them(make_table: Callable[..., Table]) -> None:
    told = _told(make_table(["one", "two", "three", "four"], ["x", "y", "x", "y"]))
    some = told.take([3, 1])
    assert some.rows.tolist() == told.rows[[3, 1]].tolist()
    assert some.losses.tolist() == [0.3, 0.1]
    assert some.predictions == ("d", "b")
    assert some.wrong is not None
    assert some.wrong.tolist() == [True, True]
    assert some.probabilities is not None
    np.testing.assert_array_equal(some.probabilities[:, 0], [1.0, 1 / 3])


def test_an_answer_too_few_is_refused(make_table: Callable[..., Table]) -> None:
    with pytest.raises(ValueError, match="3 rows need 3 predictions"):
        Predictions("test", make_table(["a", "b", "c"], ["x", "y", "x"]), np.zeros(2))


def test_another_column_draws_no_bar(
    make_table: Callable[..., Table], capfd: pytest.CaptureFixture[str]
) -> None:
    table = make_table(["one", "two", "three"], ["x", "y", "x"]).take([2, 0])
    capfd.readouterr()
    assert table.with_column("text", ["a", "b"]).column("text") == ["a", "b"]
    assert table.with_column("more", ["c", "d"]).column("more") == ["c", "d"]
    assert table.column("text") == ["three", "one"]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["text", "more", "other"])
def test_a_table_without_rows_gets_a_column(make_table: Callable[..., Table], name: str) -> None:
    table = make_table(["one", "two"], ["x", "y"]).with_column("more", ["a", "b"]).take([])
    changed = table.with_column(name, [])
    assert len(changed) == 0
    assert set(changed.rows.column_names) == {*table.rows.column_names, name}
    assert table.rows.features.items() <= changed.rows.features.items()
