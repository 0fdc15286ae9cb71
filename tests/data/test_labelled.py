"""What kind of label a column holds, and the rows and strata that follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.core.errors import DataError, RecipeError
from holdfast.data.labels.bins import (
    MIN_UNITS_PER_BIN,
    bin_of,
    choose_edges,
    join_small_strata,
    label_set_strata,
)
from holdfast.data.labels.texts import load_labelled
from holdfast.data.options import RowOptions
from holdfast.data.table import Table


def load(path: Path, rows: list[Any], **settings: Any) -> Table:
    path.write_text(
        "".join(
            json.dumps({"text": f"words of row {n}", "tags": row}) + "\n"
            for n, row in enumerate(rows)
        ),
        encoding="utf-8",
    )
    return load_labelled(str(path), RowOptions(**{"label": "tags", **settings}))


@pytest.mark.parametrize(
    "rows",
    [[["b", "a"], ["a"], [], ["c"]] * 8, ["a|b", "a", "c", "b|c"] * 8, ["a; b", "a", "b", "c"] * 8],
)
def test_several_labels_are_seen_with_the_reason(tmp_path: Path, rows: list[Any]) -> None:
    table = load(tmp_path / "x.jsonl", rows)
    assert table.names == ("a", "b", "c")
    assert table.columns.label_kind == "several"
    assert table.column("labels")[:2] == [[0, 1], [0]]
    (told,) = [d for d in table.decisions if d.what == "data.label_kind"]
    assert "data.label_kind=class" in told.because


def test_what_the_user_says_wins(tmp_path: Path) -> None:
    classes = load(tmp_path / "x.jsonl", ["a|b", "a", "c", "b|c"] * 8, label_kind="class")
    assert classes.classes == ("a", "a|b", "b|c", "c")
    comma = load(tmp_path / "x.jsonl", ["a,b", "b", "c"] * 8, separator=",")
    assert comma.names == ("a", "b", "c")
    counted = load(tmp_path / "x.jsonl", [n % 7 for n in range(60)], label_kind="number")
    assert counted.column("value")[:3].tolist() == [0.0, 1.0, 2.0]


def test_measurements_are_numbers_and_whole_numbers_are_asked_about(tmp_path: Path) -> None:
    table = load(tmp_path / "x.jsonl", [n * 0.5 for n in range(80)])
    assert table.columns.label_kind == "number"
    assert np.allclose(table.column("value"), np.arange(80) * 0.5)
    with pytest.raises(DataError, match="label_kind=number"):
        load(tmp_path / "x.jsonl", list(range(80)))


@pytest.mark.parametrize(
    ("rows", "settings", "match"),
    [
        ([1.5, "much", 2.0], {"label_kind": "number"}, "row 1.*not a finite number"),
        ([1.0, 1e308, -1e308], {"label_kind": "number"}, "row 1.*too large"),
        ([2.0] * 9, {"label_kind": "number"}, "same number in every row"),
        ([["a"], ["a"]], {}, "fewer than two"),
        (["a", "b|c"], {"label_kind": "several"}, None),
        (["a", "b"], {"label_kind": "several"}, "not a list of labels"),
        ([["a"], ["b"]], {"classes": ("a", "c")}, "not one of the classes"),
    ],
)
def test_labels_of_another_kind_are_refused(
    tmp_path: Path, rows: list[Any], settings: dict[str, Any], match: str | None
) -> None:
    if match is None:
        assert load(tmp_path / "x.jsonl", rows, **settings).names == ("a", "b", "c")
        return
    with pytest.raises(DataError, match=match):
        load(tmp_path / "x.jsonl", rows, **settings)


def test_settings_without_meaning_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no effect"):
        load(tmp_path / "x.jsonl", [n * 0.5 for n in range(80)], rare="drop")
    with pytest.raises(RecipeError, match="no effect"):
        load(tmp_path / "x.jsonl", ["a", "b"] * 9, label_kind="class", separator="|")


def test_given_rows_take_the_ranges_of_the_source(tmp_path: Path) -> None:
    source = load(tmp_path / "x.jsonl", [n * 0.5 for n in range(80)])
    other = load(tmp_path / "y.jsonl", [-3.5, 39.5, 19.5], label_kind="number", like=source)
    assert other.classes == source.classes
    assert other.column("label").tolist()[:2] == [0, len(source.classes) - 1]
    values, labels = source.column("value"), source.column("label")
    assert other.column("label")[2] == labels[values.tolist().index(19.5)]


def test_every_range_and_stratum_has_enough_independent_rows() -> None:
    rng = np.random.default_rng(0)
    values, units = np.round(rng.exponential(size=300), 1), rng.integers(0, 90, 300)
    places = bin_of(values, choose_edges(values, units))
    for number in range(places.max() + 1):
        assert len(set(units[places == number])) >= MIN_UNITS_PER_BIN
    sets = [("a",)] * 30 + [("b",)] * 20 + [("a", "b")] * 2 + [("c",)] * 3 + [()] * 8
    names, of = label_set_strata(sets, np.arange(len(sets)))
    assert "no label" in names
    assert min(np.bincount(of)) >= MIN_UNITS_PER_BIN


def test_a_set_of_near_duplicates_joins_the_largest() -> None:
    """Its rows were six independent ones by their text, and one by their meaning."""
    strata = np.array([0] * 8 + [1] * 6 + [2] * 4)
    units = np.array([*range(8), *[8] * 6, *range(9, 13)])
    assert join_small_strata(strata, units, 3).tolist() == [0] * 14 + [2] * 4
    assert join_small_strata(strata, np.arange(18), 3).tolist() == strata.tolist()


def test_folds_hold_rare_labels_together() -> None:
    labels = np.array([0] * 20 + [1] * 20 + [2] * 2 + [3] * 3)
    units = np.arange(45)
    made = join_small_strata(labels, units, 5)
    # Two and three rows are five together, which five folds can hold one each of.
    assert len(np.unique(made)) == 3
    assert made[40] == made[44]
    few = join_small_strata(labels[:42], units[:42], 5)
    assert len(np.unique(few)) == 2
    assert few[41] == few[0]
