"""Recipe keys for ``TextClassifier``, which takes texts and labels and splits them itself.

Keys that it would ignore are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.core.errors import RecipeError
from holdfast.recipe import Recipe

# They read a table, divide it or change its rows, which is done before a fit.
OF_A_TABLE = (
    *("descriptions", "features", "mix", "source", "split", "temperature", "time"),
    *("unlabelled", "unlabelled_by", "weights"),
)


def for_estimator(recipe: Recipe, labels: Sequence[Any]) -> Recipe:
    """``recipe`` with its classes named by their position in ``labels``, as in the estimator's
    rows.

    Raises ``RecipeError`` for keys that apply to the rows of a table and not to texts in memory.
    """
    plain = Recipe().data
    for key in OF_A_TABLE:
        if getattr(recipe.data, key) != getattr(plain, key):
            _refuse(f"data.{key}")
    if recipe.treat:
        _refuse("treat")
    places = {str(label): str(place) for place, label in enumerate(labels)}
    names = recipe.data.names
    if names is True:
        names = {str(label): str(label).replace("_", " ") for label in labels}
    if isinstance(names, dict):
        recipe = recipe.with_changes(data={"names": _placed("data.names", names, places)})
    balance = recipe.methods.get("balance")
    if isinstance(balance, Mapping) and isinstance(balance.get("target"), Mapping):
        target = _placed("methods.balance.target", balance["target"], places)
        recipe = recipe.with_changes(methods={"balance": {**balance, "target": target}})
    return recipe


def _placed(key: str, given: Mapping[str, object], places: Mapping[str, str]) -> dict[str, object]:
    for name in given:
        if str(name) not in places:
            known = f"Known: {', '.join(places)}."
            raise RecipeError(key, "names a label that no row has", name, known)
    return {places[str(name)]: value for name, value in given.items()}


def _refuse(key: str) -> None:
    raise RecipeError(
        key,
        "is for the rows of a table, and TextClassifier has texts and labels alone",
        None,
        "Leave it out, or use holdfast.train(frame, …), which takes a data frame.",
    )
