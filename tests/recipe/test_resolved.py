"""A resolved recipe leaves nothing open, and says the same as the recipe that it was made of."""

from __future__ import annotations

import pytest

from holdfast.core.errors import Defect
from holdfast.plan.defaults import resolve_settings
from holdfast.recipe import Recipe, override
from holdfast.recipe.resolution import ResolvedRecipe, ResolvedTrain, resolve_recipe

MACHINE = ["train.threads=1", "train.precision=float32", "train.matmul=default"]
POLICY = ["control.policy=stop"]


def complete() -> Recipe:
    recipe = override(Recipe(task="text-classification"), MACHINE + POLICY)
    return resolve_settings(recipe, 10_000_000, 400)[0]


def test_what_the_table_and_the_machine_fill_in_is_enough() -> None:
    recipe = complete()
    made = resolve_recipe(recipe, model={"max_length": 64})
    assert isinstance(made, ResolvedRecipe)
    assert made.train.epochs == recipe.train.epochs
    assert made.model.max_length == 64
    assert made.to_yaml() == recipe.with_changes(model={"max_length": 64}).to_yaml()


@pytest.mark.parametrize(
    "key", [n for n, f in ResolvedTrain.model_fields.items() if f.is_required()]
)
def test_each_open_setting_is_a_defect(key: str) -> None:
    open_again = {"precision": "auto", "matmul": "auto"}.get(key)
    with pytest.raises(Defect, match=key):
        resolve_recipe(complete(), train={key: open_again})


def test_a_recipe_without_a_task_or_with_unsettled_freezing_is_a_defect() -> None:
    with pytest.raises(Defect, match="freeze"):
        resolve_recipe(complete(), model={"freeze": None})
    with pytest.raises(Defect, match="task"):
        resolve_recipe(complete().model_copy(update={"task": None}))
