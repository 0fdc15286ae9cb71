"""Recipe keys that ``TextClassifier`` would ignore: it takes texts and labels and splits them
itself.
"""

from __future__ import annotations

from holdfast.core.errors import RecipeError
from holdfast.recipe import Recipe

# The others of ``data`` read a table, divide it or change its rows, which is done before a fit.
OF_TEXTS = ("names", "general", "limits")


def refuse_table_settings(recipe: Recipe) -> None:
    """Raise ``RecipeError`` for keys that apply to the rows of a table and not to texts in
    memory."""
    plain = Recipe().data
    ignored = [
        f"data.{key}"
        for key in type(plain).model_fields
        if key not in OF_TEXTS and getattr(recipe.data, key) != getattr(plain, key)
    ]
    if ignored or recipe.treat:
        rule = "applies to table rows; TextClassifier takes only texts and labels"
        remedy = "Remove it, or use holdfast.train(frame, …)."
        raise RecipeError(ignored[0] if ignored else "clean", rule, None, remedy)
