"""Synthetic rows as a user has them: asked for in the recipe, sifted, and used where they prove
useful."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from holdfast.core.errors import RecipeError
from holdfast.duplicates.duplicates import find_duplicates
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override, read_recipe


def texts_of(n: int, seed: int) -> list[tuple[str, str]]:
    """Random words, a quarter of them the mark of the class."""
    rng, rows = np.random.default_rng(seed), []
    for index in range(n):
        mark, label = (("bad", "no"), ("good", "yes"))[index % 2]
        words = [*(f"w{k}" for k in rng.integers(0, 40, 9)), mark, mark, mark]
        rows.append((" ".join(words[k] for k in rng.permutation(12)), label))
    return rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, write_csv: Any) -> Path:
    """240 rows; templates.csv: 300 fresh texts of the same kind, and all the rows themselves."""
    folder: Path = tmp_path_factory.mktemp("synthetic")
    write_csv(folder / "rows.csv", texts_of(240, 0))
    write_csv(folder / "templates.csv", [*texts_of(240, 0), *texts_of(300, 7)])
    return folder


def settings(rows: Path, quick: list[str], **asked: Any) -> list[str]:
    shares = {"train": 0.1, "valid": 0.6, "test": 0.3}
    return [
        f"data.path={rows / 'rows.csv'}",
        f"data.synthesize={json.dumps(asked)}",
        *(f"data.split.{side}={share}" for side, share in shares.items()),
        *quick,
        "methods.contrast=false",
    ]


@pytest.mark.slow
def test_useful_rows_are_used_marked_and_no_copies_of_any_row(
    rows: Path, quick: list[str], tmp_path: Path
) -> None:
    """Fresh rows of the same kind are the best that synthesis could give; the rows themselves, test
    rows among them, must not come back."""
    asked = {"templates": str(rows / "templates.csv"), "share": 5, "weight": 1}
    result = train(override(Recipe(), settings(rows, quick, **asked)), tmp_path / "run")
    block = result["synthetic"]
    assert block["used"], block
    assert block["gain"]["low"] > 0
    assert block["refused"]["near-copy of a row"] > 100
    assert result["data"]["added"]["synthetic"] == block["passed"]
    known = [text for text, _ in _table(rows / "rows.csv")]
    new = [one["text"] for one in block["rows"]]
    groups = find_duplicates([*known, *new]).groups
    assert not set(groups[: len(known)].tolist()) & set(groups[len(known) :].tolist())
    splits = pq.read_table(tmp_path / "run" / "splits.parquet")
    assert len(splits) == 240
    train(read_recipe(tmp_path / "run" / "recipe.yaml"), tmp_path / "again")
    model = Path("model") / "model.safetensors"
    assert (tmp_path / "again" / model).read_bytes() == (tmp_path / "run" / model).read_bytes()


def _table(path: Path) -> list[tuple[str, str]]:
    import csv

    with path.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_what_a_model_that_knows_nothing_writes_is_not_used(
    rows: Path, quick: list[str], tiny_llama: Path, tmp_path: Path
) -> None:
    plain = train(
        override(Recipe(), [s for s in settings(rows, quick) if "synthesize" not in s]),
        tmp_path / "plain",
    )
    asked = {"model": str(tiny_llama), "share": 0.5}
    result = train(override(Recipe(), settings(rows, quick, **asked)), tmp_path / "run")
    block = result["synthetic"]
    assert block["made"]["model"] > 10
    assert not block["used"]
    assert "synthetic" not in result["data"]["added"]
    (said,) = [one for one in result["decisions"] if one["what"] == "synthetic rows"]
    assert said["chosen"] == "none"
    assert result["test"]["metrics"] == plain["test"]["metrics"]


def test_what_cannot_be_made_is_refused(
    rows: Path, quick: list[str], tmp_path: Path, write_csv: Any
) -> None:
    with pytest.raises(RecipeError, match="templates, model or recombine"):
        train(override(Recipe(), settings(rows, quick, share=1)), tmp_path / "r")
    strange = write_csv(tmp_path / "t.csv", [("a {b|c}", "maybe")])
    with pytest.raises(RecipeError, match="no row has"):
        train(override(Recipe(), settings(rows, quick, templates=str(strange))), tmp_path / "r")
    assert not (tmp_path / "r" / "result.json").exists()
