"""``data.split.test=0``: all rows make the model, and outer folds make its score."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

from holdfast.contract.fit import RunStart
from holdfast.core.errors import HoldfastError, RecipeError, SplitError
from holdfast.core.records import Outputs
from holdfast.data.mix import SOURCE
from holdfast.fits import row_use
from holdfast.fits.compose import make_training_plan
from holdfast.fits.row_use import LearningRows, learning_rows, predict_outer_folds
from holdfast.pipeline.main import train
from holdfast.prepare.rows import load_and_divide
from holdfast.recipe import Recipe, override, read_recipe
from holdfast.stats.intervals import wilson
from holdfast.stats.temperature import losses_at
from holdfast.tasks.classes.row_weights import scores_by_source

ROWS = 60
# Passes are left open: they come of the rows.
SHORT = ["train.evaluations=2", "train.epochs=null", "methods.contrast.steps=4"]


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory, marked_rows: Any, write_csv: Any) -> Path:
    path: Path = write_csv(tmp_path_factory.mktemp("none") / "rows.csv", marked_rows(ROWS))
    return path


def recipe_of(csv: Path, quick: list[str], *settings: str) -> Recipe:
    asked = [f"data.path={csv}", *quick, *SHORT, "data.split.test=0", *settings]
    return override(Recipe(), asked)


@pytest.fixture(scope="module")
def run(csv: Path, quick: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "none"
    train(recipe_of(csv, quick, "train.folds=2"), folder)
    return folder


def result_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "result.json").read_text("utf-8"))
    return found


@pytest.mark.slow
def test_the_score_is_of_all_rows_out_of_fold(run: Path, csv: Path) -> None:
    result = result_of(run)
    test = result["test"]
    assert test["out_of_fold"] is True
    assert test["folds"] == row_use.FOLDS
    assert test["n"] == ROWS
    assert result["data"]["train"] == ROWS
    assert result["data"]["test"] == 0
    answers = parquet.read_table(run / "predictions.parquet").to_pylist()
    assert sorted(answer["row"] for answer in answers) == list(range(ROWS))
    right = sum(answer["label"] == answer["prediction"] for answer in answers)
    accuracy = test["metrics"]["accuracy"]
    assert accuracy["value"] == pytest.approx(right / ROWS)
    low, high = wilson(right, ROWS)
    assert accuracy["low"] < low
    assert accuracy["high"] > high
    assert "out of fold" in accuracy["note"]
    assert {row["split"] for row in parquet.read_table(run / "splits.parquet").to_pylist()} == {
        "train"
    }


def test_its_baselines_are_out_of_fold_too(run: Path) -> None:
    """A probe asked of the rows that it was fitted on would be right on nearly all of them."""
    shown = {entry["what"]: entry["test"] for entry in result_of(run)["baseline"]["all"]}
    assert shown["linear probe"]["n"] == shown["majority class"]["n"] == ROWS
    # And so are their intervals.
    for one in shown.values():
        accuracy = one["metrics"]["accuracy"]
        low, high = wilson(accuracy["value"] * ROWS, ROWS)
        assert accuracy["low"] < low
        assert accuracy["high"] > high
    # The commonest of two classes alike often is, out of fold, rather the one that was held out.
    assert shown["majority class"]["metrics"]["accuracy"]["value"] <= 0.5 + 1e-9


def test_each_source_has_the_wider_interval_too() -> None:
    names = ["a"] * 30 + ["b"] * 30
    table: Any = SimpleNamespace(
        rows=SimpleNamespace(column_names=[SOURCE]), column=lambda _: names
    )
    labels, logits = np.arange(60) % 2, np.random.default_rng(0).normal(size=(60, 2))
    outputs = Outputs(np.arange(60), labels, logits, losses_at(logits, labels, 1.0))
    found = scores_by_source(outputs, table, ("no", "yes"), row_use.FOLDS)
    assert found is not None
    for one in found.values():
        accuracy = one["metrics"]["accuracy"]
        low, high = wilson(accuracy["value"] * 30, 30)
        assert accuracy["low"] < low
        assert accuracy["high"] > high


def test_report_card_and_answers_say_so(run: Path) -> None:
    for name in ("report.html", "model/README.md"):
        assert "out of fold" in (run / name).read_text("utf-8"), name


@pytest.mark.slow
def test_its_recipe_repeats_it(run: Path, tmp_path: Path) -> None:
    again = train(read_recipe(run / "recipe.yaml"), tmp_path / "again")
    first = result_of(run)
    assert again["test"]["metrics"] == first["test"]["metrics"]
    assert again["valid"]["metrics"] == first["valid"]["metrics"]
    weights = [p / "model" / "model.safetensors" for p in (run, tmp_path / "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def learning(csv: Path, quick: list[str], *settings: str) -> LearningRows:
    divided = load_and_divide(recipe_of(csv, quick, *settings))
    return learning_rows(divided.recipe, divided)


@pytest.mark.slow
@pytest.mark.parametrize("folds", [0, 2])
def test_the_labels_of_an_outer_fold_change_no_answer_to_it(
    folds: int, csv: Path, quick: list[str], tmp_path: Path
) -> None:
    """All rows of one fold get one label: steps, state, temperature and weights of what answers
    it stay as they were, so its answers do, to the bit."""
    whole = learning(csv, quick, f"train.folds={folds}")
    fold = whole.outer[1]
    whole = replace(whole, outer=(fold,))
    examples: Any = whole.prepared.examples
    marks = np.array(examples.labels)
    marks[fold.held_out] = 1
    table = whole.prepared.rows
    rows = table.rows.remove_columns("label").add_column("label", marks.tolist())
    prepared = replace(
        whole.prepared, rows=replace(table, rows=rows), examples=replace(examples, labels=marks)
    )
    changed = replace(whole, prepared=prepared)
    rows, held = (whole.train, whole.valid)
    ready = make_training_plan(whole.prepared, rows, held, cross_fitted=bool(folds))
    answers = [
        predict_outer_folds(one, ready.recipe, tmp_path / name, RunStart("", "", "", (), ()))
        for one, name in ((whole, "a"), (changed, "b"))
    ]
    for name in ("logits", "probe", "majority"):
        before, after = (getattr(one, name)[fold.held_out] for one in answers)
        assert np.isfinite(before).all()
        np.testing.assert_array_equal(before, after)


def test_copies_stay_on_one_side_of_every_division(
    marked_rows: Any, write_csv: Any, quick: list[str], tmp_path: Path
) -> None:
    rows = marked_rows(ROWS)
    path = write_csv(tmp_path / "copies.csv", [*rows, *rows[:30]])
    whole = learning(path, quick, "train.folds=0")
    units = whole.prepared.units
    assert len(np.unique(units)) <= ROWS
    for fold in whole.outer:
        train, valid = row_use._inner_split(whole, fold.train)
        assert sorted([*train, *valid, *fold.held_out]) == whole.everything.tolist()
        for one, other in ((fold.train, fold.held_out), (train, valid)):
            assert not np.isin(units[one], units[other]).any()


@pytest.mark.parametrize(
    ("rare", "told"), [(4, "the 5 outer folds"), (5, "4 of the 5 outer folds")]
)
def test_a_class_too_small_for_the_outer_folds_is_told_of_them(
    marked_rows: Any, write_csv: Any, quick: list[str], tmp_path: Path, rare: int, told: str
) -> None:
    """Five rows stand in every outer fold, but four of these cannot be divided into five."""
    rows = [*marked_rows(ROWS), *((f"a rare text {i}", "rare") for i in range(rare))]
    path = write_csv(tmp_path / "rare.csv", rows)
    with pytest.raises(SplitError, match=rf"class 'rare'.*of the 5 splits.*{told}") as caught:
        learning(path, quick, "train.folds=5")
    assert "remove data.split.test" in caught.value.remedy


@pytest.mark.slow
def test_a_killed_run_repeats_no_outer_fold(
    run: Path,
    csv: Path,
    quick: list[str],
    killed: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, done = row_use._predict_fold, []

    def counted(learning: Any, fold: Any, *recipes: Any) -> Any:
        if len(done) == 2:
            raise killed
        done.append(fold.number)
        return real(learning, fold, *recipes)

    monkeypatch.setattr(row_use, "_predict_fold", counted)
    with pytest.raises(killed):
        train(recipe_of(csv, quick, "train.folds=2"), tmp_path / "cut")
    again: list[int] = []

    def resumed(learning: Any, fold: Any, *recipes: Any) -> Any:
        again.append(fold.number)
        return real(learning, fold, *recipes)

    monkeypatch.setattr(row_use, "_predict_fold", resumed)
    result = train(Recipe(), tmp_path / "cut", resume=True)
    assert (done, again) == ([0, 1], [2, 3, 4])
    assert result["test"] == result_of(run)["test"]
    files = [p / "predictions.parquet" for p in (run, tmp_path / "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_rows_too_few_for_the_folds_are_refused_before_anything_is_trained(
    marked_rows: Any, write_csv: Any, quick: list[str], tmp_path: Path
) -> None:
    rows = [*marked_rows(40), *((f"w{i} w{i + 9} odd", "rare") for i in range(4))]
    path = write_csv(tmp_path / "rows.csv", rows)
    with pytest.raises(SplitError, match="rare"):
        train(recipe_of(path, quick), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_has_no_such_score_is_refused(
    marked_rows: Any, write_csv: Any, quick: list[str], tmp_path: Path
) -> None:
    numbers = write_csv(
        tmp_path / "numbers.csv", [(text, i % 9) for i, (text, _) in enumerate(marked_rows(80))]
    )
    with pytest.raises(RecipeError, match="out-of-fold score is not supported for"):
        train(recipe_of(numbers, quick, "data.label_kind=number"), tmp_path / "run")
    csv = write_csv(tmp_path / "rows.csv", marked_rows(60))
    # Its layers would be chosen by labels of the outer folds' own rows.
    with pytest.raises(RecipeError, match=r"cannot be used with model\.freeze=auto"):
        train(recipe_of(csv, quick, "model.freeze=auto"), tmp_path / "run")
    with pytest.raises(HoldfastError, match="must be above 0 for seq2seq"):
        train(recipe_of(csv, [], "task=seq2seq"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
