"""Each odd key of a recipe has a plain second name, and either may be used."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from holdfast.core.errors import RecipeError
from holdfast.core.setting_names import PLAIN_NAMES, plain_key
from holdfast.recipe import Recipe, as_settings, key_names, known_keys, override, parse, read_recipe
from holdfast.recipe.plain_names import OTHER_LIBRARY_ARGUMENTS, stored_key, unknown_key_remedy
from holdfast.search.space_request import read_search_recipe, split_settings

# A value for each key that is not its default.
VALUES: dict[str, object] = {
    "enrich": {"aeda": {"share": 0.3}},
    "treat": {"markup": True},
    "data.names": {"a": "the first class"},
    "data.rare": "merge",
    "data.split.held": ["shop 3"],
    "train.accumulate": 4,
    "train.clip": 0.5,
    "train.warmup": 0.2,
    "train.patience": 3,
    "train.metric": "f1_macro",
    "train.keep": "last",
    "train.checkpoint_activations": True,
    "control.worth": 0.02,
    "control.chance": 0.5,
    "meta.looks": 4,
}
# What a key needs beside it.
NEEDED = {"data.split.held": {"data.split.by": "group", "data.group": "shop"}}


def as_tree(values: dict[str, object]) -> dict[str, object]:
    tree: dict[str, object] = {}
    for key, value in values.items():
        *path, last = key.split(".")
        section = tree
        for name in path:
            section = section.setdefault(name, {})  # type: ignore[assignment]
        section[last] = value
    return tree


def test_the_table_names_known_keys_and_new_ones() -> None:
    stored = {*Recipe.model_fields, *known_keys()}
    assert set(PLAIN_NAMES) <= stored
    assert not set(PLAIN_NAMES.values()) & stored
    assert set(VALUES) == set(PLAIN_NAMES)
    for old, plain in PLAIN_NAMES.items():
        assert old.rpartition(".")[0] == plain.rpartition(".")[0], "both stand in one section"
        assert (stored_key(plain), plain_key(old)) == (old, plain)


@pytest.mark.parametrize("key", PLAIN_NAMES)
def test_either_name_gives_the_same_recipe(tmp_path: Path, key: str) -> None:
    extra = NEEDED.get(key, {})
    old = {**extra, key: VALUES[key]}
    plain = {**extra, PLAIN_NAMES[key]: VALUES[key]}
    expected = parse(as_tree(old), "a test")
    assert expected != parse(as_tree(extra), "a test")
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(as_tree(plain)))
    assert read_recipe(path) == expected
    assert override(Recipe(), as_settings(plain)) == expected
    assert override(Recipe(), as_settings(old)) == expected


@pytest.mark.parametrize("key", PLAIN_NAMES)
def test_a_written_recipe_keeps_the_old_name(key: str) -> None:
    extra = NEEDED.get(key, {})
    made = override(Recipe(), as_settings({**extra, PLAIN_NAMES[key]: VALUES[key]}))
    written = yaml.safe_load(made.to_yaml())
    for name in key.split("."):
        written = written[name]
    assert written == VALUES[key]


@pytest.mark.parametrize("key", PLAIN_NAMES)
def test_two_names_with_two_values_are_refused(key: str) -> None:
    both = {key: VALUES[key], PLAIN_NAMES[key]: None}
    for attempt in (
        lambda: parse(as_tree(both), "r.yaml"),
        lambda: override(Recipe(), as_settings(both)),
    ):
        with pytest.raises(RecipeError) as caught:
            attempt()
        assert key in caught.value.rule
        assert PLAIN_NAMES[key] in caught.value.rule


def test_two_names_with_one_value_are_accepted() -> None:
    plain = {"train": {"clip": 2, "max_grad_norm": 2.0}}
    assert parse(plain, "a test").train.clip == 2
    assert override(Recipe(), ["train.clip=2", "train.max_grad_norm=2.0"]).train.clip == 2


def test_a_setting_overrides_a_file_that_uses_the_other_name() -> None:
    of_file = parse({"train": {"early_stopping_patience": 2}}, "r.yaml")
    assert override(of_file, ["train.patience=5"]).train.patience == 5
    assert override(of_file, ["train.early_stopping_patience=6"]).train.patience == 6


def test_a_later_setting_wins_under_the_plain_name_too() -> None:
    settings = ["train.max_grad_norm=2", "train.max_grad_norm=3"]
    assert override(Recipe(), settings).train.clip == 3


def test_sections_join_key_by_key() -> None:
    made = override(Recipe(), ["treat.space=true", "clean.mask.only=[email]", "augment.aeda=true"])
    assert made.treat == {"space": True, "mask": {"only": ["email"]}}
    assert made.enrich == {"aeda": True}
    with pytest.raises(RecipeError, match=r"clean\.space and treat\.space"):
        override(Recipe(), ["treat.space=true", "clean.space=false"])


@pytest.mark.parametrize(
    ("setting", "nearest"),
    [
        ("train.gradient_accumulation=4", "train.gradient_accumulation_steps"),
        ("train.early_stopping_patienc=4", "train.early_stopping_patience"),
        ("train.patienc=4", "train.patience"),
        ("max_grad_norm=1", "train.max_grad_norm"),
    ],
)
def test_an_unknown_key_names_the_nearest_of_either_set(setting: str, nearest: str) -> None:
    key, _, value = setting.partition("=")
    with pytest.raises(RecipeError, match="unknown key") as of_set:
        override(Recipe(), [setting])
    with pytest.raises(RecipeError, match="unknown key") as of_file:
        parse(as_tree({key: value}), "r.yaml")
    for caught in (of_set, of_file):
        assert f"Did you mean {nearest!r}" in caught.value.remedy


@pytest.mark.parametrize("section", ["clen", "augmnt"])
def test_an_unknown_section_names_the_nearest_of_either_set(section: str) -> None:
    with pytest.raises(RecipeError, match=r"Did you mean '(clean|augment)'"):
        parse({section: {}}, "r.yaml")


def test_a_wrong_value_is_refused_under_the_name_that_was_typed() -> None:
    with pytest.raises(RecipeError) as caught:
        override(Recipe(), ["train.max_grad_norm=-1"])
    assert "train.max_grad_norm" in caught.value.what
    with pytest.raises(RecipeError) as caught:
        parse({"train": {"clip": -1}}, "r.yaml")
    assert "train.clip" in caught.value.what


def test_the_value_is_no_table_where_a_section_is_expected() -> None:
    with pytest.raises(RecipeError):
        parse({"train": 3, "clean": 5}, "r.yaml")


def test_a_search_takes_plain_names(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "train:\n  warmup_ratio: {range: [0, 0.3]}\n  learning_rate: {range: [1e-5, 1e-4]}\n"
        "augment: {aeda: {share: {range: [0.1, 0.5]}}}\n"
    )
    _, ranges, _ = read_search_recipe(path)
    assert list(ranges) == ["train.warmup", "train.learning_rate", "enrich.aeda.share"]
    fixed, ranges, _ = split_settings(["train.max_grad_norm={range: [1, 2]}", "clean.space=true"])
    assert (fixed, list(ranges)) == (["treat.space=true"], ["train.clip"])


def test_every_plain_name_is_suggested() -> None:
    assert set(PLAIN_NAMES.values()) <= set(key_names())


def test_an_argument_of_another_library_is_told_by_a_setting_that_exists() -> None:
    for argument, setting in OTHER_LIBRARY_ARGUMENTS.items():
        remedy = unknown_key_remedy(f"train.{argument}", known_keys())
        key = setting.partition(" ")[0].partition("=")[0]
        assert stored_key(key) in (*known_keys(), "methods.neftune")
        assert remedy == f"In Holdfast, use {setting}."
    remedy = unknown_key_remedy("train.assistant_only_loss", known_keys())
    assert remedy.startswith("Leave it out: ")
