"""Side columns: what the training rows say of them, against plain arithmetic and scikit-learn."""

from __future__ import annotations

import datetime
import json

import numpy as np
import pytest
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from holdfast.core.errors import DataError, RecipeError
from holdfast.data.columns.extra import (
    Column,
    ColumnRequest,
    fit_column,
    parse_column_requests,
    parse_days,
    parse_number,
)


def again(column: Column) -> Column:
    """As the folder keeps it."""
    return Column(column.name, column.kind, json.loads(json.dumps(dict(column.facts))))


def test_numbers_are_scaled_as_scikit_learn_does_on_the_training_rows_alone() -> None:
    rng = np.random.default_rng(0)
    train, new = rng.normal(7, 3, 200), np.array([100.0, -5.0, 7.0])
    column = again(fit_column(ColumnRequest("x"), [f"{v:.6f}" for v in train]))
    scaler = StandardScaler().fit(np.round(train, 6)[:, None])
    z = scaler.transform(new[:, None])[:, 0]
    found = column.encode([str(v) for v in new])
    assert found[:, 0] == pytest.approx(z)
    knots = np.quantile(scaler.transform(np.round(train, 6)[:, None]), [0.25, 0.5, 0.75])
    wanted = np.maximum(z[:, None] - knots[None, :], 0)
    assert found[:, 1:] == pytest.approx(wanted, abs=1e-5)


def test_a_missing_number_is_the_mean_and_has_a_mark() -> None:
    column = again(fit_column(ColumnRequest("x"), [str(v) for v in range(20)] + ["", None]))
    found = column.encode(["", "9.5"])
    assert found.shape == (2, column.width)
    assert found[0].tolist() == [0] * (column.width - 1) + [1]
    assert found[1, 0] == pytest.approx(0)
    assert found[1, -1] == 0


def test_long_tails_are_read_on_a_logarithmic_scale() -> None:
    values = np.exp(np.random.default_rng(1).normal(3, 1.5, 300))
    assert fit_column(ColumnRequest("x"), [str(v) for v in values]).facts["log"] is True
    assert fit_column(ColumnRequest("x"), [str(v) for v in np.arange(300)]).facts["log"] is False


def test_categories_are_those_of_scikit_learn_and_the_rare_ones_are_others() -> None:
    cells = ["a"] * 5 + ["b"] * 4 + ["c"] * 3 + ["d", "e"]
    column = again(fit_column(ColumnRequest("shop"), cells))
    oracle = OneHotEncoder(
        min_frequency=3, sparse_output=False, handle_unknown="infrequent_if_exist"
    )
    wanted = oracle.fit(np.array(cells)[:, None])
    new = ["a", "c", "d", "zzz"]
    assert column.encode(new).tolist() == wanted.transform(np.array(new)[:, None]).tolist()
    assert not column.encode([""]).any()


def test_a_date_is_days_and_its_places_in_week_and_year() -> None:
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(days=k) for k in range(60)]
    column = again(fit_column(ColumnRequest("when"), [day.isoformat() for day in days]))
    assert column.kind == "date"
    found = column.encode(["2024-01-01", "2024-01-08", "2024-01-04"])
    week = found[:, -4:-2]
    assert week[0] == pytest.approx(week[1])
    assert not np.allclose(week[0], week[2])
    assert (week**2).sum(axis=1) == pytest.approx(1)
    assert parse_days("1970-01-02T12:00:00Z") == 1.5
    assert parse_days("1970-01-02T12:00:00+02:00") == pytest.approx(1.5 - 2 / 24)


def test_cells_are_read_as_the_numbers_that_people_write() -> None:
    written = ["1,234.5", " 12 %", "true", "1e3", "-0.5"]
    assert [parse_number(one) for one in written] == [1234.5, 12, 1, 1000, -0.5]
    assert all(np.isnan(parse_number(one)) for one in ("", "inf", "a1", "1,2", None))


def test_few_different_numbers_are_grades_unless_the_recipe_says_numbers() -> None:
    cells = ["1", "2", "3", "4", "5"] * 10
    assert fit_column(ColumnRequest("stars"), cells).kind == "category"
    assert fit_column(ColumnRequest("stars", "number"), cells).kind == "number"


@pytest.mark.parametrize(
    ("asked", "cells", "rule"),
    [
        (ColumnRequest("x"), ["a", "a", ""], "only one value"),
        (ColumnRequest("x"), ["", None], "is empty"),
        (ColumnRequest("x", "number"), ["1", "2", "three"], "not a number"),
        (ColumnRequest("x"), [f"id{k}" for k in range(30)], "identifies rows"),
    ],
)
def test_what_cannot_be_a_feature_is_refused(
    asked: ColumnRequest, cells: list[str], rule: str
) -> None:
    with pytest.raises(DataError, match=rule):
        fit_column(asked, cells)


def test_kinds_follow_the_last_colon_of_a_name() -> None:
    assert parse_column_requests(["a", "b:number", "c:d:date"]) == (
        ColumnRequest("a"),
        ColumnRequest("b", "number"),
        ColumnRequest("c:d", "date"),
    )
    for wrong in (["a:numbre"], ["text.lenght"], ["a", "a:number"]):
        with pytest.raises(RecipeError, match=r"data\.features"):
            parse_column_requests(wrong)
