"""What fits share, and what each takes from its own training rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.core.errors import Defect, RecipeError
from holdfast.data.memory.texts import table_from_texts
from holdfast.fits.fit import fit
from holdfast.fits.row_use import learning_rows
from holdfast.prepare.model import concatenate, prepare, prepare_divided
from holdfast.prepare.rows import load_and_divide
from holdfast.recipe import Recipe, override
from holdfast.search.context import SearchContext
from holdfast.tasks import task_definition

SMALL = [
    "train.max_steps=2",
    "train.threads=1",
    "train.precision=float32",
    "train.matmul=default",
    "train.evaluations=1",
    "methods.contrast=false",
]


@pytest.fixture
def rows_of(tmp_path: Path) -> Callable[..., str]:
    def write(lines: list[dict[str, Any]], name: str = "rows.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return str(path)

    return write


def test_tables_are_pooled_in_their_order() -> None:
    one, other = table_from_texts(["a0", "a1", "a2"]), table_from_texts(["b0", "b1"])
    rows, places = concatenate(one, other.take([]), other)
    assert rows.column("text") == ["a0", "a1", "a2", "b0", "b1"]
    assert [place.tolist() for place in places] == [[0, 1, 2], [], [3, 4]]


def test_a_column_that_one_table_lacks_is_left_out() -> None:
    labels = list("xyxyxy")
    grouped = table_from_texts(list("abcdef"), labels, list("gghhii"))
    rows, _ = concatenate(grouped, table_from_texts(list("ghijkl"), labels))
    assert rows.column("text") == list("abcdefghijkl")
    assert not rows.has_groups


def test_a_division_is_prepared_without_its_test_rows(
    rows_of: Callable[..., str], tiny_model: Path
) -> None:
    words = [" ".join(f"w{(7 * i + k) % 40}" for k in range(5)) for i in range(40)]
    lines = [{"text": text, "label": "xy"[i % 2]} for i, text in enumerate(words)]
    lines += [dict(line) for line in lines[:6]]
    recipe = override(Recipe(), [f"data.path={rows_of(lines)}", f"model.name={tiny_model}", *SMALL])
    splits = load_and_divide(recipe).splits
    prepared, train, valid = prepare_divided(recipe, splits)
    texts = prepared.rows.column("text")
    assert [texts[i] for i in train] == splits.train.table.column("text")
    assert [texts[i] for i in valid] == splits.valid.table.column("text")
    assert not set(texts) & set(splits.test.open().column("text"))
    assert len(prepared.examples) == len(prepared.units) == len(train) + len(valid)
    # Copies have one unit, and no unit stands on both sides.
    of_text: dict[str, set[int]] = {}
    for text, unit in zip(texts, prepared.units.tolist(), strict=True):
        of_text.setdefault(text, set()).add(unit)
    assert all(len(units) == 1 for units in of_text.values())
    assert len({unit for units in of_text.values() for unit in units}) == len(of_text)
    assert not set(prepared.units[train].tolist()) & set(prepared.units[valid].tolist())


def test_rows_in_a_file_of_their_own_have_units_of_their_own(
    rows_of: Callable[..., str], tiny_model: Path
) -> None:
    def line(i: int) -> dict[str, str]:
        return {
            "text": " ".join(f"w{(11 * i + k * k) % 40}" for k in range(6)),
            "label": "xy"[i % 2],
        }

    recipe = override(
        Recipe(),
        [
            f"data.path={rows_of([line(i) for i in range(30)])}",
            f"data.valid={rows_of([line(i) for i in range(30, 40)], 'valid.jsonl')}",
            f"model.name={tiny_model}",
            *SMALL,
        ],
    )
    splits = load_and_divide(recipe).splits
    prepared, train, valid = prepare_divided(recipe, splits)
    assert [prepared.rows.column("text")[i] for i in valid] == splits.valid.table.column("text")
    assert not set(prepared.units[train].tolist()) & set(prepared.units[valid].tolist())
    fitted = fit(prepared, train, valid)
    assert len(fitted.training_plan.valid) == len(splits.valid)


def test_phrases_of_a_static_model_are_those_of_the_training_rows(
    rows_of: Callable[..., str], tiny_model: Path
) -> None:
    def lines(phrase: str) -> list[dict[str, str]]:
        return [{"text": f"w{i} w{i + 1} {phrase}", "label": "xy"[i % 2]} for i in range(20)]

    recipe = override(
        Recipe(),
        [
            f"data.path={rows_of(lines('w31 w32'))}",
            f"data.valid={rows_of(lines('w33 w34'), 'valid.jsonl')}",
            f"model.name={tiny_model}",
            "model.static=true",
            *SMALL,
        ],
    )
    divided = load_and_divide(recipe)
    learning = learning_rows(divided.recipe, divided)
    context = SearchContext.from_learning_rows(learning)
    for prepared in (learning.prepared, context.prepared({"model.dropout": 0.2})):
        words = prepared.loaded.tokenizer.get_vocab()
        assert "w31 w32" in words
        assert "w33 w34" not in words
    folded = override(recipe, ["data.valid=null", "train.folds=2"])
    with pytest.raises(RecipeError, match=r"cannot be used with model\.static"):
        learning_rows(folded, load_and_divide(folded))


def test_the_unit_of_numbers_is_that_of_the_rows_that_are_learned(
    rows_of: Callable[..., str], tiny_model: Path
) -> None:
    values = np.array([1.0, 2.0, 4.0, 8.0, 100.0, 200.0, 400.0, 800.0])
    source = rows_of([{"text": f"w{i} w{i + 1}", "label": float(v)} for i, v in enumerate(values)])
    settings = [f"data.path={source}", "data.label_kind=number", f"model.name={tiny_model}"]
    recipe = override(Recipe(task="text-classification"), [*settings, *SMALL])
    rows = task_definition(recipe.task).read(source, recipe.data, None)
    prepared = prepare(recipe, rows)
    for train, valid in (([0, 1, 2, 3], [4, 5]), ([7, 5, 4], [0, 1, 2])):
        fitted = fit(prepared, np.array(train), np.array(valid))
        loaded: Any = fitted.training_plan.loaded
        assert loaded.scale.mean == pytest.approx(values[train].mean())
        assert loaded.scale.std == pytest.approx(values[train].std())
        sides: Any = fitted.training_plan.splits
        for side, places in ((sides.train, train), (sides.valid, valid)):
            expected = (values[places] - values[train].mean()) / values[train].std()
            np.testing.assert_allclose(side.labels, expected, rtol=1e-6)
        assert sides.train_rows.table.column("row").tolist() == train
        assert sides.valid_rows.table.column("row").tolist() == valid
        # Other rows are read in the same unit.
        other: Any = fitted.encode(prepared.rows.take([6]))
        assert other.labels[0] == pytest.approx((400 - values[train].mean()) / values[train].std())


@pytest.mark.parametrize(
    ("train", "valid", "rule"),
    [
        ([0, 1, 2, 3], [3, 4], r"both for training and for validation \(found: 3\)"),
        ([0, 1, 24], [2], r"not among the 24 prepared ones \(found: 24\)"),
        ([0, 1, 2], [-1], r"validation rows that are not among .* \(found: -1\)"),
    ],
)
def test_positions_that_are_no_division_are_refused(
    rows_of: Callable[..., str], tiny_model: Path, train: list[int], valid: list[int], rule: str
) -> None:
    source = rows_of([{"text": f"w{i} w{i + 1}", "label": "xy"[i % 2]} for i in range(24)])
    settings = [f"data.path={source}", f"model.name={tiny_model}", *SMALL]
    recipe = override(Recipe(task="text-classification"), settings)
    prepared = prepare(recipe, task_definition(recipe.task).read(source, recipe.data, None))
    with pytest.raises(Defect, match=rule):
        fit(prepared, np.array(train), np.array(valid))


def test_a_fit_measures_rows_that_it_has_not_learned(
    rows_of: Callable[..., str], tiny_model: Path
) -> None:
    """Folds: each row is measured by the fit that has not learned it, and nothing is encoded."""
    lines = [{"text": f"w{i} w{(3 * i) % 40}", "label": "xy"[i % 2]} for i in range(24)]
    source = rows_of(lines)
    recipe = override(
        Recipe(task="text-classification"), [f"data.path={source}", f"model.name={tiny_model}"]
    )
    recipe = override(recipe, SMALL)
    prepared = prepare(recipe, task_definition(recipe.task).read(source, recipe.data, None))
    losses = np.full(len(prepared), np.nan)
    for fold in range(3):
        held = np.arange(24) % 3 == fold
        fitted = fit(prepared, np.flatnonzero(~held), np.flatnonzero(held))
        examples = prepared.examples.take(np.flatnonzero(held))
        losses[held], logits = fitted.measure(examples)
        np.testing.assert_allclose(losses[held], fitted.best_evaluation.valid_losses, rtol=1e-5)
        assert logits.shape == (8, 2)
        untuned: Any = fitted.base_network()
        assert not untuned.training
        start = dict(prepared.loaded.network.named_parameters())
        for name, parameter in untuned.named_parameters():
            if not name.startswith("head."):
                assert parameter.data_ptr() == start[name].data_ptr(), name
    assert np.isfinite(losses).all()
