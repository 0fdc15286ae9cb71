"""Rows added to the training side: learned from with their weights, and in nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.contract.fit import FittedModel, PreparedData
from holdfast.core.errors import Defect, RecipeError
from holdfast.data.memory.texts import table_from_texts
from holdfast.data.table import AddedRows, added_texts, join_added
from holdfast.fits.fit import fit
from holdfast.models.probes.probe import ExtraRows, fit_probe
from holdfast.prepare.model import prepare
from holdfast.recipe import parse
from holdfast.tasks import task_definition

WORDS = {"a": "w1 w2 w3 w4", "b": "w11 w12 w13 w14", "c": "w21 w22 w23 w24"}
SETTINGS = {
    "train.max_steps": 6,
    "train.batch_size": 4,
    "train.evaluations": 2,
    "methods.contrast": False,
    "train.learning_rate": 1e-3,
}
TRAIN, VALID = np.arange(24), np.arange(24, 36)


def prepared_of(plain: dict[str, Any], **more: Any) -> PreparedData:
    recipe = parse(plain, "recipe")
    rows = task_definition(recipe.task).read(str(recipe.data.path), recipe.data, None)
    return prepare(recipe, rows, **more)


def digest(fitted: FittedModel) -> dict[str, Any]:
    """The weights and every look of a fit."""
    weights = {n: t.detach().numpy().tobytes() for n, t in fitted.network.state_dict().items()}
    looks = [(s.train_losses.tolist(), s.valid_losses.tolist()) for s in fitted.trained.history]
    return {"weights": weights, "history": looks}


def rows_of(path: Path) -> Path:
    random = np.random.default_rng(0)
    lines = ["text,label"]
    for i in range(36):
        label = "abc"[i % 3]
        lines.append(f"{' '.join(random.choice(WORDS[label].split(), 3))} w{30 + i % 9},{label}")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> PreparedData:
    source = rows_of(tmp_path_factory.mktemp("added") / "rows.csv")
    return prepared_of(
        {
            "task": "text-classification",
            "data": {"path": str(source)},
            "model": {"name": str(tiny_model), "dropout": 0.0},
            "train": {"threads": 1, "precision": "float32", "matmul": "default"},
        }
    )


@pytest.fixture(scope="module")
def added(plain: PreparedData) -> AddedRows:
    return join_added(
        added_texts(plain.rows, list(WORDS.values()), [0, 1, 2], origin="name", weights=2.0),
        added_texts(plain.rows, ["w1 w4", "w12 w14"], [0, 1], origin="synthetic"),
    )


def test_rows_that_are_left_out_or_weigh_nothing_change_no_bit(
    plain: PreparedData, added: AddedRows
) -> None:
    wanted = digest(fit(plain, TRAIN, VALID, SETTINGS))
    left_out = fit(plain.extended(added), TRAIN, VALID, {**SETTINGS, "train.added": []})
    assert digest(left_out) == wanted
    assert left_out.training_plan.added == {}
    weightless = plain.extended(replace(added, weights=np.zeros(len(added))))
    assert digest(fit(weightless, TRAIN, VALID, SETTINGS)) == wanted


def test_added_rows_are_learned_from_and_stand_nowhere_else(
    plain: PreparedData, added: AddedRows
) -> None:
    both = plain.extended(added)
    fitted, without = (fit(one, TRAIN, VALID, SETTINGS) for one in (both, plain))
    assert digest(fitted)["weights"] != digest(without)["weights"]
    assert fitted.training_plan.added == {"name": 3, "synthetic": 2}
    # Sizes, probe and data map are those of the table's rows.
    first, last = fitted.trained.history[0], fitted.trained.history[-1]
    assert len(both) == len(plain) == 36
    assert len(last.valid_losses) == len(VALID)
    assert len(last.train_losses) <= len(TRAIN)
    kept = next(x for x in fitted.job.listeners if x.name == "example_history")
    assert kept.data_map().rows.tolist() == fitted.training_plan.train.rows.tolist()
    assert kept.data_map().rows.min() >= 0
    # The baseline is the probe of the table's rows alone, the start of the head is not.
    (one,), (other,) = fitted.listeners, without.listeners
    assert np.array_equal(one.baseline["weight"], other.baseline["weight"])
    assert not np.allclose(first.valid_losses, without.trained.history[0].valid_losses)
    decisions = {d.what: d for d in fitted.training_plan.decisions}
    assert decisions["added rows"].chosen == "3 of origin name, 2 of origin synthetic"


def test_a_fit_chooses_added_rows_by_origin(plain: PreparedData, added: AddedRows) -> None:
    both = plain.extended(added)
    names = fit(both, TRAIN, VALID, {**SETTINGS, "train.added": ["name"]})
    assert names.training_plan.added == {"name": 3}
    words = list(WORDS.values())
    alone = added_texts(plain.rows, words, [0, 1, 2], origin="name", weights=2.0)
    again = fit(plain.extended(alone), TRAIN, VALID, SETTINGS)
    assert digest(again)["weights"] == digest(names)["weights"]
    other = added_texts(plain.rows, words, [1, 2, 0], origin="name", weights=2.0)
    turned = fit(plain.extended(other), TRAIN, VALID, SETTINGS)
    assert digest(turned)["weights"] != digest(again)["weights"]


def test_a_weight_of_two_is_the_row_twice_in_every_gradient(plain: PreparedData) -> None:
    """In one full batch without dropout the mean loss over rows with weights is that of the rows
    repeated."""
    text, label = ["w1 w4", "w12 w14"], [0, 1]
    one = added_texts(plain.rows, text, label, origin="synthetic", weights=2.0)
    twice = added_texts(plain.rows, text * 2, label * 2, origin="synthetic")
    plain_start = {"train.optimizer": "sgd", "train.warmup": 0, "methods.probe_first": False}
    whole = {**SETTINGS, "train.max_steps": 2, **plain_start}
    ends = [
        fit(plain.extended(lot), TRAIN, VALID, {**whole, "train.batch_size": 40}).network
        for lot in (one, twice)
    ]
    first, second = (dict(network.named_parameters()) for network in ends)
    for name in first:
        gap = (first[name] - second[name]).abs().max().item()
        assert gap < 2e-4, (name, gap)


def test_a_probe_with_rows_beside_it_is_the_weighted_regression_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(1)
    for classes in (2, 4):
        x, y = random.normal(size=(60, 6)), np.arange(60) % classes
        x[np.arange(60), y] += 1.0
        others, theirs = random.normal(size=(7, 6)), np.arange(7) % classes
        weights = random.uniform(0.2, 3, size=7)
        probe = fit_probe(
            x, y, classes=classes, seed=0, c=0.3, extra_rows=ExtraRows(others, theirs, weights)
        )
        centre, scale = x.mean(axis=0), np.sqrt(x.var(axis=0).mean())
        both = (np.concatenate([x, others]) - centre) / scale
        oracle = LogisticRegression(C=0.3, tol=1e-8, max_iter=5000).fit(
            both, np.concatenate([y, theirs]), sample_weight=np.r_[np.ones(60), weights]
        )
        shares = np.exp(probe.logits(x))
        shares /= shares.sum(axis=1, keepdims=True)
        assert np.abs(shares - oracle.predict_proba(both[:60])).max() < 2e-3


def test_rows_beside_a_probe_are_in_no_held_out_fold_and_bring_classes() -> None:
    random = np.random.default_rng(2)
    x, y = random.normal(size=(40, 3)), np.arange(40) % 2
    beside = ExtraRows(random.normal(size=(3, 3)), np.array([2, 2, 0]), np.ones(3))
    probe = fit_probe(x, y, classes=4, seed=0, extra_rows=beside)
    assert probe.held_out is not None
    assert probe.held_out.shape == (40, 4)
    assert np.isfinite(probe.weight).all()
    assert probe.weight[2].any()
    assert not probe.weight[3].any()
    # Of no weight they are not there.
    nothing = ExtraRows(beside.features, beside.labels, np.zeros(3))
    one = fit_probe(x, y, classes=4, seed=0, extra_rows=nothing)
    assert np.array_equal(one.weight, fit_probe(x, y, classes=4, seed=0).weight)


def test_faults_are_named(plain: PreparedData, added: AddedRows, tmp_path: Path) -> None:
    like: Any = plain.rows
    with pytest.raises(Defect, match="classes"):
        added_texts(like, ["x"], [3], origin="name")
    with pytest.raises(Defect, match="label"):
        added_texts(like, ["x", "y"], [1], origin="name")
    with pytest.raises(Defect, match="must have an origin"):
        added_texts(like, ["x"], [1], origin="dream")
    with pytest.raises(Defect, match="weight"):
        replace(added, weights=-np.ones(len(added)))
    with pytest.raises(Defect, match="pairs"):
        added_texts(table_from_texts([("x", "y")]), ["x"], [], origin="name")
    numbers = tmp_path / "numbers.csv"
    numbers.write_text(
        "text,label\n" + "\n".join(f"words {i},{i / 7:.3f}" for i in range(40)), encoding="utf-8"
    )
    plain_recipe = {
        "task": "text-classification",
        "data": {"path": str(numbers), "label_kind": "number"},
        "model": {"name": plain.recipe.model.name},
        "train": {"threads": 1, "precision": "float32", "matmul": "default"},
    }
    with pytest.raises(RecipeError, match="one class each"):
        prepared_of(plain_recipe).extended(added)
