"""The one place for configuration: a frozen recipe, read from YAML, unknown keys refused.

A recipe that a user writes may leave out almost everything; ``None`` means "Holdfast chooses". The
recipe that a run writes has the same type with every value filled in, and repeats the run. Inner
code never sees a recipe: it takes flat arguments.
"""

from holdfast.recipe.parts import DataPart
from holdfast.recipe.recipe import (
    Recipe,
    as_settings,
    key_names,
    known_keys,
    override,
    parse,
    read_recipe,
    resolve_paths,
)

__all__ = [
    "DataPart",
    "Recipe",
    "resolve_paths",
    "as_settings",
    "key_names",
    "known_keys",
    "override",
    "parse",
    "read_recipe",
]
