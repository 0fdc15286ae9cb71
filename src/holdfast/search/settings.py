"""What ``search:`` of a recipe may say, beside the ranges that stand in the place of values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, ValidationError

from holdfast.core.discovery import nearest
from holdfast.core.errors import RecipeError
from holdfast.recipe.parts import FOLDS, MINUTES, Part

MOST_TRIALS = 100_000


class SearchPart(Part):
    """How a search goes about it.

    ``sampler`` chooses the next settings, ``pruner`` ends trials that are behind. ``folds``: each
    trial is fitted so many times and judged out of fold (0: by the run's own validation rows).
    ``trials`` and ``minutes`` bound the search. ``seed`` is that of the recipe where it is left
    out. ``end``: it may end before its last trial, where another is not worth its price.
    """

    sampler: Literal["auto", "grid", "random", "tpe", "gp"] = "auto"
    pruner: Literal["auto", "none", "halving", "hyperband", "verdict", "race"] = "auto"
    folds: int = Field(default=0, ge=0, le=FOLDS)
    trials: int | None = Field(default=None, ge=1, le=MOST_TRIALS)
    minutes: float | None = Field(default=None, gt=0, le=MINUTES)
    seed: int | None = Field(default=None, ge=0, le=2**63 - 1)
    end: bool = True


def search_part(said: object, more: Mapping[str, object], names: list[str]) -> SearchPart | str:
    """What a recipe says under ``search`` with what was said beside it; or the name of another
    way to search, one of ``names``. Raises ``RecipeError``."""
    plain = dict(more)
    whole = plain.pop("", None)
    said = said if whole is None else whole
    if isinstance(said, str):
        if said not in names:
            raise RecipeError("search", "is no way to search", said, nearest(said, names))
        if plain:
            rule = f"is {said}, which has no such setting"
            raise RecipeError("search", rule, next(iter(plain)), "Leave it out.")
        return said
    if said is not None and not isinstance(said, Mapping):
        rule = "is neither a table of settings nor a way to search"
        raise RecipeError("search", rule, said, "E.g. search: {trials: 8}.")
    try:
        found = SearchPart.model_validate({**(said or {}), **plain})
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            known = list(SearchPart.model_fields)
            raise RecipeError("search", "names an unknown key", key, nearest(key, known)) from None
        rule = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
        given, remedy = fault.get("input"), "See docs/tune.md."
        raise RecipeError(f"search.{key}", rule[0].lower() + rule[1:], given, remedy) from None
    if found.folds == 1:
        rule = "is one fold, which is no division"
        raise RecipeError("search.folds", rule, 1, "Set 0 for none, or 2 and more.")
    if found.pruner == "race" and not found.folds:
        rule = "is race, which compares trials fold by fold"
        raise RecipeError("search.pruner", rule, None, "Set search.folds=5 too.")
    return found
