"""A space as a person writes it: what is understood, what is refused, and its points."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import optuna
import pytest
import yaml

from holdfast.contract.request import TrainingRequest
from holdfast.core.errors import RecipeError
from holdfast.recipe import Recipe, override
from holdfast.search.space import Dimension, SettingCondition, Space
from holdfast.search.space_request import parse_space, read_search_recipe, split_settings
from holdfast.search.study import suggest_value
from holdfast.search.trial_plan import search_part
from holdfast.search.tune import Tune, tune_request

RATE = {"range": ["1e-5", "5e-4"], "log": True}


def space(**ranges: Any) -> Space:
    return parse_space({key.replace("__", "."): value for key, value in ranges.items()}, Recipe())


def test_ranges_are_taken_out_of_a_recipe_and_the_rest_is_read(tmp_path: Any) -> None:
    text = """
    data: {path: rows.csv}
    train: {learning_rate: {range: [1e-5, 5e-4], log: true}, epochs: 3}
    methods: {contrast: {temperature: {range: [0.05, 0.3]}, steps: 20}}
    search: {trials: 4, sampler: tpe}
    """
    (tmp_path / "rows.csv").write_text("text,label\n")
    (tmp_path / "recipe.yaml").write_text(text)
    recipe, ranges, said = read_search_recipe(tmp_path / "recipe.yaml")
    assert recipe.train.epochs == 3
    assert recipe.train.learning_rate is None
    assert recipe.methods == {"contrast": {"steps": 20}}
    assert recipe.data.path == str(tmp_path / "rows.csv")
    assert set(ranges) == {"train.learning_rate", "methods.contrast.temperature"}
    assert said == {"trials": 4, "sampler": "tpe"}
    # What is left is the recipe that one gets without any of it.
    plain = yaml.safe_load(text)
    del plain["search"], plain["train"]["learning_rate"]
    del plain["methods"]["contrast"]["temperature"]
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(plain))
    assert recipe == read_search_recipe(tmp_path / "plain.yaml")[0]


def test_what_the_command_sets_to_one_value_is_searched_no_more(tmp_path: Any) -> None:
    recipe = tmp_path / "r.yaml"
    epochs, rate = "epochs: {range: [1, 8]}", "learning_rate: {range: [1e-5, 1e-3], log: true}"
    recipe.write_text(f"data: {{path: rows.csv}}\ntrain: {{{epochs}, {rate}}}\n")
    _, made, procedure = tune_request(TrainingRequest(str(recipe), settings=["train.epochs=3"]))
    assert made.train.epochs == 3
    assert isinstance(procedure, Tune)
    assert set(procedure.ranges) == {"train.learning_rate"}


def test_settings_are_sorted_into_recipe_ranges_and_search() -> None:
    left, ranges, said = split_settings(
        [
            "train.learning_rate={range: [1e-5, 5e-4], log: true}",
            "train.optimizer={choices: [adamw, sgd]}",
            "train.epochs=3",
            "search.trials=4",
            "train.optimizer=adamw",
        ]
    )
    assert left == ["train.epochs=3", "train.optimizer=adamw"]
    assert ranges == {"train.learning_rate": RATE}
    assert said == {"trials": 4}


def test_a_range_has_numbers_of_its_key_and_a_grid() -> None:
    made = space(
        train__learning_rate=RATE,
        train__epochs={"range": [1, 8], "step": 1},
        train__batch_size={"range": [8, 32], "log": True},
        train__warmup={"range": [0, 0.3]},
    ).by_key
    rate, epochs = made["train.learning_rate"], made["train.epochs"]
    assert (rate.value_type, rate.low, rate.high, rate.log) == ("number", 1e-5, 5e-4, True)
    assert np.allclose(rate.grid(), np.geomspace(1e-5, 5e-4, 3))
    assert epochs.grid() == tuple(range(1, 9))
    assert epochs.finite
    assert made["train.batch_size"].grid() == (8, 16, 32)
    assert made["train.warmup"].grid() == (0, 0.15, 0.3)
    assert not made["train.warmup"].finite
    assert made["train.warmup"].contains(0.2)
    assert not made["train.warmup"].contains(0.4)
    assert not epochs.contains(2.5)
    assert not epochs.contains(True)


def test_what_depends_on_a_choice_is_searched_where_it_has_an_effect() -> None:
    made = space(
        model__adapter__rank={"range": [4, 64], "log": True},
        model__adapter__kind={"choices": [None, "lora", "ia3"]},
        methods__contrast__steps={"range": [10, 50], "step": 20},
        methods__contrast={"choices": [True, False]},
    )
    keys = [one.key for one in made]
    assert keys.index("model.adapter.kind") < keys.index("model.adapter.rank")
    assert keys.index("methods.contrast") < keys.index("methods.contrast.steps")
    points = list(made.grid())
    by_hand = [
        {"model.adapter.kind": kind, **rank, "methods.contrast": contrast, **steps}
        for kind, contrast in itertools.product((None, "lora", "ia3"), (True, False))
        for rank in ([{"model.adapter.rank": r} for r in (4, 16, 64)] if kind == "lora" else [{}])
        for steps in ([{"methods.contrast.steps": s} for s in (10, 30, 50)] if contrast else [{}])
    ]
    assert sorted(map(repr, map(sorted_, points))) == sorted(map(repr, map(sorted_, by_hand)))
    assert made.grid_size() == len(by_hand) == 20
    assert all(made.contains(point) for point in points)
    assert not made.contains({"model.adapter.kind": "ia3", "model.adapter.rank": 4})


def sorted_(point: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(point.items())


@pytest.mark.parametrize(
    ("key", "value", "names", "remedy"),
    [
        (
            "data.split.test",
            {"choices": [0.1, 0.2]},
            "training or validation rows",
            "holdfast compare",
        ),
        (
            "treat.dedupe",
            {"choices": [True, False]},
            "training or validation rows",
            "holdfast compare",
        ),
        ("seed", {"choices": [1, 2]}, "chance", "holdfast cv"),
        ("model.name", {"choices": ["a", "b"]}, "is the model", "holdfast choose"),
        ("train.metric", {"choices": ["loss", "f1"]}, "scored", "Set one value"),
        ("train.huber", {"choices": [None, 0.3]}, "scored", "Set one value"),
        ("model.max_target_length", {"choices": [2, 16]}, "scored", "Set one value"),
        (
            "methods.balance.target",
            {"choices": ["rows", "even"]},
            "scored before that",
            "Set one value",
        ),
        ("train.lr", {"range": [1, 2]}, "unknown key", "train.learning_rate"),
        ("train", {"choices": [1, 2]}, "section with several", "train.epochs"),
        ("train.batch_size", {"range": [8.5, 32]}, "whole numbers", "range"),
        ("train.learning_rate", {"range": [1, 0]}, "not above", "range"),
        ("train.learning_rate", {"range": [0, 1], "log": True}, "begin above 0", "log"),
        ("train.learning_rate", {"range": [1, "a"]}, "needs numbers", "range"),
        ("train.learning_rate", {"range": [1, 2, 3]}, "two numbers", "range"),
        ("train.learning_rate", {"range": [1, 2], "lgo": True}, "unknown key", "log"),
        ("train.learning_rate", {"choices": [1]}, "at least two", "choices"),
        ("train.learning_rate", {"choices": [1, 1.0]}, "repeats", "once"),
        ("train.epochs", {"range": [1, 8], "step": 9}, "does not fit", "step"),
        ("train.epochs", {"range": [-1, 2]}, "greater than 0", "range"),
        ("train.optimizer", {"choices": ["adamw", "adamx"]}, "optimizer", "adamw"),
        ("train.schedule", {"choices": ["linear", "linaer"]}, "schedule", "linear"),
        ("methods.contrast.stps", {"range": [1, 2]}, "not a setting", "steps"),
        ("methods.nope", {"choices": [True, False]}, "unknown method", "known"),
        ("enrich.nope", {"choices": [True, False]}, "unknown augmentation", "known"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_name(
    key: str, value: Any, names: str, remedy: str
) -> None:
    with pytest.raises(RecipeError) as refused:
        parse_space({key: value}, Recipe())
    told = str(refused.value)
    assert refused.value.exit_code == 2
    assert key in told
    assert names in told
    assert remedy in refused.value.remedy


def test_an_adapter_that_the_recipe_has_makes_its_rank_searchable() -> None:
    recipe = override(Recipe(), ["model.adapter.kind=lora"])
    (one,) = parse_space({"model.adapter.rank": {"range": [4, 8]}}, recipe)
    assert one.when is None
    assert one.grid() == (4, 5, 6, 7, 8)


@pytest.mark.parametrize(
    ("said", "more", "names"),
    [
        ({"sampler": "tpee"}, {}, "sampler"),
        ({"nope": 1}, {}, "nope"),
        ("nope", {}, "nope"),
        (None, {"folds": 1}, "cannot be 1"),
        (None, {"pruner": "race"}, "fold by fold"),
        (None, {"trials": 0}, "trials"),
        ([1], {}, "neither"),
    ],
)
def test_a_way_to_search_that_is_none_is_refused(said: Any, more: Any, names: str) -> None:
    with pytest.raises(RecipeError, match=names):
        search_part(said, more)


def test_optuna_draws_what_the_space_holds_and_nothing_where_it_has_no_effect() -> None:
    made = Space(
        (
            Dimension("train.learning_rate", "number", 1e-5, 1e-3, log=True),
            Dimension("train.epochs", "whole", 1, 9, 2.0),
            Dimension("train.batch_size", "whole", 4, 64, log=True),
            Dimension("train.warmup", "number", 0, 0.5, 0.1),
            Dimension("methods.contrast", "choice", choices=(True, False)),
            Dimension("model.freeze", "choice", choices=(None, 1, "auto", ["a", "b"])),
            Dimension(
                "methods.contrast.steps",
                "whole",
                10,
                50,
                when=SettingCondition("methods.contrast", (True,)),
            ),
        )
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen: dict[str, set[str]] = {}
    for _ in range(200):
        trial, chosen = study.ask(), dict[str, Any]()
        for one in made:
            if one in made.active(chosen):
                chosen[one.key] = suggest_value(trial, one)
        assert made.contains(chosen), chosen
        assert ("methods.contrast.steps" in chosen) == chosen["methods.contrast"]
        for key, value in chosen.items():
            seen.setdefault(key, set()).add(repr(value))
    assert seen["model.freeze"] == {"None", "1", "'auto'", "['a', 'b']"}
    assert seen["train.epochs"] == {"1", "3", "5", "7", "9"}
    assert len(seen["train.warmup"]) == 6
