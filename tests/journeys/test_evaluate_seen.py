"""``holdfast evaluate``: what the run had seen is no test, and averages have an honest score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch


@pytest.fixture(scope="module")
def sides(finished_run: Path) -> dict[str, list[int]]:
    table = parquet.read_table(finished_run / "splits.parquet").to_pydict()
    return {
        side: [
            row for row, split in zip(table["row"], table["split"], strict=True) if split == side
        ]
        for side in ("train", "valid", "test")
    }


def test_the_training_file_is_told_from_a_test(
    holdfast: Any, finished_run: Path, marked_csv: Path, sides: dict[str, list[int]]
) -> None:
    done = holdfast("evaluate", finished_run, marked_csv, "--json")
    assert done.code == 0, done.err
    block = json.loads(done.out)
    assert block["n"] == 160
    for side, rows in sides.items():
        told = block["seen"][side]
        assert (told["n"], told["same_rows"], told["copies"]) == (len(rows), len(rows), 0)
        assert told["rows"] == rows[:100]
    assert block["without_seen"]["n"] == len(sides["test"])
    result = json.loads((finished_run / "result.json").read_text("utf-8"))
    accuracy = result["test"]["metrics"]["accuracy"]
    assert block["without_seen"]["metrics"]["accuracy"] == accuracy
    shown = holdfast("evaluate", finished_run, marked_csv).out
    assert f"{len(sides['train'])} were training rows" in " ".join(shown.split())
    assert shown.index("not seen in training\n") < shown.index("including those seen in")


def test_copies_are_found_in_another_file(
    holdfast: Any,
    finished_run: Path,
    marked_rows: Any,
    write_csv: Any,
    sides: dict[str, list[int]],
    tmp_path: Path,
) -> None:
    """A text in other case and punctuation, and one with a word more, are copies still."""
    rows, fresh = marked_rows(), marked_rows(5, seed=99)
    exact = [(f"  {rows[row][0].upper()}!!", rows[row][1]) for row in sides["train"][:4]]
    long = max(sides["valid"], key=lambda row: len(rows[row][0].split()))
    near = [(f"{rows[long][0]} w1", rows[long][1])]
    path = write_csv(tmp_path / "new.csv", [*fresh, *exact, *near])
    block = json.loads(holdfast("evaluate", finished_run, path, "--json").out)
    seen = block["seen"]
    assert (seen["train"]["n"], seen["train"]["copies"]) == (4, 4)
    assert seen["train"]["rows"] == [5, 6, 7, 8]
    assert seen["valid"]["rows"] == [9]
    assert seen["why"] is None
    assert block["without_seen"]["n"] == 5


def test_rows_that_are_new_say_nothing(
    holdfast: Any, finished_run: Path, marked_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "new.csv", marked_rows(20, seed=99))
    block = json.loads(holdfast("evaluate", finished_run, path, "--json").out)
    assert all(block["seen"][side]["n"] == 0 for side in ("train", "valid", "test"))
    assert "without_seen" not in block
    assert "!!" not in holdfast("evaluate", finished_run, path).out


@pytest.mark.slow
def test_a_source_that_is_gone_leaves_exact_copies_and_a_reason(
    holdfast: Any, marked_rows: Any, write_csv: Any, sets: list[str], tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "old.csv", marked_rows(80))
    assert holdfast("train", path, "--out", "r", "--quiet", *sets).code == 0
    path.unlink()
    again = write_csv(tmp_path / "again.csv", marked_rows(80))
    block = json.loads(holdfast("evaluate", "r", again, "--json").out)
    table = parquet.read_table(tmp_path / "r" / "splits.parquet")
    assert block["seen"]["train"]["n"] == table["split"].to_pylist().count("train")
    assert "cannot be read" in block["seen"]["why"]
    shown = holdfast("evaluate", "r", again).out
    assert "not fully known" in " ".join(shown.split())


@pytest.mark.slow
def test_a_source_that_was_written_anew_is_not_the_rows_of_before(
    holdfast: Any, marked_rows: Any, write_csv: Any, sets: list[str], tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "old.csv", marked_rows(80))
    assert holdfast("train", path, "--out", "r", "--quiet", *sets).code == 0
    write_csv(path, marked_rows(30, seed=99))
    block = json.loads(holdfast("evaluate", "r", path, "--json").out)
    assert block["seen"]["train"]["n"] == 0
    assert "have changed" in block["seen"]["why"]


@pytest.mark.slow
def test_an_average_has_an_honest_score(
    holdfast: Any,
    finished_run: Path,
    marked_csv: Path,
    sets: list[str],
    marked_rows: Any,
    write_csv: Any,
    tmp_path: Path,
) -> None:
    """Against the mean of the probabilities that plain Transformers gives, and scikit-learn."""
    from sklearn.metrics import f1_score, log_loss

    done = holdfast("train", marked_csv, "--seed", "3", "--out", "b", "--quiet", *sets)
    assert done.code == 0, done.err
    rows = marked_rows(40, seed=21)
    path = write_csv(tmp_path / "new.csv", rows)
    block = json.loads(holdfast("evaluate", finished_run, "b", path, "--json").out)
    chances = np.mean(
        [
            _plain(run / "model", [text for text, _ in rows])
            for run in (finished_run, tmp_path / "b")
        ],
        axis=0,
    )
    labels = np.array([("no", "yes").index(label) for _, label in rows])
    told = block["metrics"]
    assert told["accuracy"]["value"] == pytest.approx((chances.argmax(1) == labels).mean())
    assert told["f1_macro"]["value"] == pytest.approx(
        f1_score(labels, chances.argmax(1), average="macro")
    )
    assert told["loss"]["value"] == pytest.approx(log_loss(labels, chances), rel=1e-4)
    assert told["accuracy"]["low"] < told["accuracy"]["value"] < told["accuracy"]["high"]
    both = json.loads(holdfast("evaluate", finished_run, "b", marked_csv, "--json").out)
    one = json.loads(holdfast("evaluate", finished_run, marked_csv, "--json").out)
    # Divided with two seeds: what either learned is seen by the average.
    assert both["seen"]["train"]["n"] > one["seen"]["train"]["n"]


def _plain(folder: Path, texts: list[str]) -> np.ndarray:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        batch.pop("token_type_ids", None)
        return model(**batch).logits.double().softmax(1).numpy()


def test_columns_called_otherwise_are_named(
    holdfast: Any, finished_run: Path, marked_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    rows = marked_rows(20, seed=99)
    plain = write_csv(tmp_path / "a.csv", rows)
    other = write_csv(tmp_path / "b.csv", [(*row, "x") for row in rows], ["body", "y", "text"])
    named = ("--text", "body", "--label", "y", "--json")
    told = [
        json.loads(holdfast("evaluate", finished_run, *given).out)["metrics"]
        for given in ((plain, "--json"), (other, *named))
    ]
    assert told[0] == told[1]


def test_a_missing_test_file_is_told_before_the_rows_are_looked_at(
    holdfast: Any, marked_csv: Path
) -> None:
    done = holdfast("train", marked_csv, "--test", "tset.csv", "--out", "r")
    assert done.code == 2
    assert "tset.csv" in done.err
    assert "does not exist" in done.err
    assert "70/15/15" not in done.err
    assert "text column" not in done.err
