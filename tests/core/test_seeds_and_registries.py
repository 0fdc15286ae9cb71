"""Seeds by name; families that refuse an unknown member by naming the nearest."""

from __future__ import annotations

import pytest

from holdfast.core.discovery import FAMILIES, Registry, suggest_name
from holdfast.core.errors import RecipeError
from holdfast.core.seeds import derive_seed, generator


def test_a_seed_depends_on_every_name_and_on_their_places() -> None:
    purposes = [
        (0, "a"),
        (1, "a"),
        (0, "b"),
        (0, "a", 1),
        (0, "a", 2),
        (0, "a", "b"),
        (0, "b", "a"),
    ]
    seeds = [derive_seed(*purpose) for purpose in purposes]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_seeds_are_the_same_on_every_machine_and_in_every_version() -> None:
    """Pinned: a change would shift every division and every run."""
    assert derive_seed(0, "batches", 1) == derive_seed(0, "batches", "1")
    assert [derive_seed(0, "batches", 1), derive_seed(42, "head")] == [2100172383, 3190351599]


def test_generators_of_one_purpose_draw_alike() -> None:
    assert generator(3, "x").random() == generator(3, "x").random()
    assert generator(3, "x").random() != generator(3, "y").random()


@pytest.fixture
def fruit():
    registry: Registry[int] = Registry("fruit for a test", "train.fruit")
    yield registry
    del FAMILIES["fruit for a test"]


def test_a_registry_finds_lists_and_counts(fruit) -> None:
    fruit.add("apple", 1)
    fruit.add("pear", 2)
    assert fruit["pear"] == 2
    assert list(fruit) == ["apple", "pear"]
    assert "apple" in fruit
    assert "kiwi" not in fruit
    assert FAMILIES["fruit for a test"] is fruit


def test_an_unknown_member_is_refused_with_the_setting_and_the_nearest(fruit) -> None:
    fruit.add("apple", 1)
    fruit.add("pear", 2)
    with pytest.raises(RecipeError) as caught:
        fruit["aple"]
    assert caught.value.what == "train.fruit"
    assert "Did you mean 'apple'?" in caught.value.remedy
    assert "apple, pear" in caught.value.remedy


def test_nothing_near_names_all() -> None:
    assert suggest_name("zzz", ["b", "a"]) == "Known: a, b."


def test_of_many_names_the_ten_nearest_are_shown() -> None:
    many = [f"train.key_{n}" for n in range(60)] + ["train.learning_rate", "train.epochs"]
    told = suggest_name("epochs", many)
    assert told.startswith("Did you mean 'train.epochs'? The nearest of 62 known: train.epochs, ")
    assert told.count(",") == 9
    assert suggest_name("lr", many).startswith("Did you mean 'train.learning_rate'?")
    assert suggest_name("train.lr", many).startswith("Did you mean 'train.learning_rate'?")
    assert suggest_name("learningrate", many).startswith("Did you mean 'train.learning_rate'?")
