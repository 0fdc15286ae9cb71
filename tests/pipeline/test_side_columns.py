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
from holdfast.tasks.classes.extra_features_selection import ALPHA, unlike_chance

ROWS = 240
NOISE = {f"noise{i}": ["number", "category", "date"][i % 3] for i in range(8)}


def noise_cells(kind: str, n: int, rng: np.random.Generator) -> list[str]:
    if kind == "number":
        return [f"{value:.3f}" for value in rng.normal(9, 2, n)]
    if kind == "category":
        return [f"c{value}" for value in rng.integers(0, 6, n)]
    days = zip(rng.integers(1, 13, n), rng.integers(1, 29, n), strict=True)
    return [f"2024-{month:02}-{day:02}" for month, day in days]


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
    held = datasets.Dataset.from_dict({f"side:{name}": list(of) for name, of in cells.items()})
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
