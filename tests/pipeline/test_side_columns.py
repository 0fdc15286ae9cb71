"""Which side columns are kept: those that tell more of the classes than chance does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pytest

from holdfast.data.columns.extra import Column, ColumnRequest, fit_column
from holdfast.data.table import Columns, Table
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override
from holdfast.stats.two_samples import holm
from holdfast.tasks.classes.extra_features_selection import (
    ALPHA,
    FOLDS,
    _alone,
    cross_fitted,
    unlike_chance,
)

ROWS = 240
NOISE = {f"noise{i}": ["number", "category", "date"][i % 3] for i in range(8)}


def noise_cells(kind: str, n: int, rng: np.random.Generator) -> list[str]:
    if kind == "number":
        return [f"{value:.3f}" for value in rng.normal(9, 2, n)]
    if kind == "category":
        return [f"c{value}" for value in rng.integers(0, 6, n)]
    days = zip(rng.integers(1, 13, n), rng.integers(1, 29, n), strict=True)
    return [f"2024-{month:02}-{day:02}" for month, day in days]


def texts(n: int) -> list[str]:
    return [f"text {place}" for place in range(n)]


def drawn(
    seed: int, n: int = ROWS, classes: int = 3
) -> tuple[tuple[Column, ...], Table, npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """A shop that tells the class in some rows, a number that leans with it, a copy of the number,
    and eight columns of noise, beside logits of a text."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    text = rng.normal(size=(n, classes))
    text[np.arange(n), labels] += 1.0
    price = [f"{value:.3f}" for value in rng.normal(size=n) + 1.5 * (labels == 0)]
    shop = np.where(rng.random(n) < 0.5, labels, rng.integers(0, classes, n))
    cells: dict[str, Sequence[str]] = {
        "shop": [f"s{one}" for one in shop],
        "price": price,
        "price again": price,
    }
    cells |= {name: noise_cells(kind, n, rng) for name, kind in NOISE.items()}
    held = datasets.Dataset.from_dict(
        {"text": texts(n)} | {f"side:{name}": list(of) for name, of in cells.items()}
    )
    table = Table(held, (), Columns(("text",), "label"), "rows.csv", n)
    columns = tuple(fit_column(ColumnRequest(name), of) for name, of in cells.items())
    return columns, table, labels, text


@pytest.mark.slow
def test_columns_of_noise_are_kept_in_a_twentieth_of_all_draws_at_most() -> None:
    """Nominally 0.05 of draws; seven of forty would be beyond chance (p = 0.003)."""
    found = []
    for seed in range(40):
        columns, rows, labels, text = drawn(seed)
        p_values = holm(unlike_chance(columns, rows, labels, text, seed))
        found.append({c.name for c, p in zip(columns, p_values, strict=True) if p <= ALPHA})
    assert sum(bool(names & set(NOISE)) for names in found) < 7
    # What tells the class is kept, and a copy does not push the column out that it is a copy of.
    for name in ("shop", "price", "price again"):
        assert np.mean([name in names for names in found]) > 0.95


def test_the_order_of_columns_changes_nothing_and_an_equal_column_is_equal() -> None:
    columns, rows, labels, text = drawn(0)
    p_values = unlike_chance(columns, rows, labels, text, 0)
    assert unlike_chance(columns[::-1], rows, labels, text, 0).tolist() == p_values.tolist()[::-1]
    assert p_values[1] == p_values[2] == 1 / 1000


def test_many_columns_can_all_be_told_from_chance() -> None:
    columns, rows, labels, text = drawn(0)
    p_values = unlike_chance(columns[:1] * 100, rows, labels, text, 0)
    assert (holm(p_values) <= ALPHA).all()


def in_groups(
    rng: np.random.Generator, kind: str
) -> tuple[tuple[Column], Table, npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Twenty groups of different sizes, whose labels are alike for a reason that the price does
    not know; the price is that of the group, with noise of each row if it ``varies``."""
    group = np.repeat(np.arange(20), rng.integers(2, 18, 20))
    n = len(group)
    labels = (rng.random(n) < np.clip(rng.beta(0.7, 0.7, 20), 0.02, 0.98)[group]).astype(np.int64)
    price = rng.normal(size=20)[group] + (0.3 * rng.normal(size=n) if kind == "varies" else 0)
    cells = [f"{value:.3f}" for value in price]
    held = datasets.Dataset.from_dict(
        {
            "text": texts(n),
            "side:price": cells,
            "group": [f"shop {g}" for g in group],
            "label": labels,
        }
    )
    table = Table(held, ("a", "b"), Columns(("text",), "label", group="group"), "rows.csv", n)
    return (fit_column(ColumnRequest("price"), cells),), table, labels, np.zeros((n, 2))


@pytest.mark.parametrize("kind", ["constant", "varies"])
def test_labels_that_are_alike_in_a_group_make_no_column_of_groups_useful(kind: str) -> None:
    rng = np.random.default_rng(4)
    p = [unlike_chance(*in_groups(rng, kind), seed)[0] for seed in range(15)]
    # Nominally 0.05; without the groups it was 0.42.
    assert np.mean(np.array(p) <= ALPHA) <= 0.2


def test_groups_of_one_row_are_rows() -> None:
    (column,), table, labels, text = in_groups(np.random.default_rng(5), "varies")
    alone = table.rows.remove_columns("group").add_column(
        "group", [f"row {k}" for k in range(len(table))]
    )
    names = Columns(("text",), "label")
    plain = Table(table.rows.remove_columns("group"), (), names, "rows.csv", len(table))
    each = Table(alone, (), Columns(("text",), "label", group="group"), "rows.csv", len(table))
    one, other = (unlike_chance((column,), t, labels, text, 0) for t in (plain, each))
    assert one == other


def test_rows_of_a_group_share_a_fold_and_count_together() -> None:
    columns, table, labels, text = in_groups(np.random.default_rng(6), "constant")
    losses = cross_fitted(columns, table, labels, text, 0).losses
    groups = np.asarray(table.column("group"))
    # Rows of one group and one class have the same price, so one fit gives them one loss.
    pairs = {
        pair: set(losses[(groups == pair[0]) & (labels == pair[1])].round(9))
        for pair in zip(groups, labels, strict=True)
    }
    assert {len(one) for one in pairs.values()} == {1}
    assert len(set(losses.round(9))) > FOLDS


def test_auto_proposes_no_column_of_groups_by_chance() -> None:
    rng, proposed = np.random.default_rng(7), 0
    for _ in range(30):
        (column,), table, _, _ = in_groups(rng, "constant")
        proposed += _alone(column, table)[1].low > 0
    assert proposed <= 2


@pytest.mark.slow
def test_a_run_with_eight_columns_of_noise_reads_none_of_them(
    tmp_path: Path, quick: list[str], marked_rows: Any, write_csv: Any
) -> None:
    rng, rows = np.random.default_rng(3), marked_rows(ROWS)
    cells = [noise_cells(kind, ROWS, rng) for kind in NOISE.values()]
    given = [
        (text, f"{label}-{'ab'[i // 2 % 2]}", "ab"[i // 2 % 2], *(of[i] for of in cells))
        for i, (text, label) in enumerate(rows)
    ]
    path = write_csv(tmp_path / "rows.csv", given, ("text", "label", "shop", *NOISE))
    features = f"data.features=[shop, {', '.join(NOISE)}]"
    result = train(override(Recipe(), [f"data.path={path}", features, *quick]), tmp_path / "run")
    of = {column["name"]: column for column in result["wrapper"]["columns"]}
    assert [name for name, column in of.items() if column["kept"]] == ["shop"]
    assert of["shop"]["p_value"] <= ALPHA < min(of[name]["p_value"] for name in NOISE)
    (said,) = [one for one in result["decisions"] if one["what"] == "feature columns"]
    assert all(name in said["because"] for name in NOISE)
    assert "permutation test, Holm" in said["because"]
    about = json.loads((tmp_path / "run" / "features" / "features.json").read_text("utf-8"))
    assert [column["name"] for column in about["columns"]] == ["shop"]
