"""The space of a search as a person writes it: ``{range: [1e-5, 5e-4], log: true}``,
``{range: [1, 8], step: 1}`` or ``{choices: [linear, cosine]}`` in the place of a value, in a recipe
or behind ``--set``. They are taken out before the recipe is read, which knows values alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from holdfast.augment.registry import check_enrich
from holdfast.core.discovery import suggest_name
from holdfast.core.errors import RecipeError
from holdfast.core.wording import count_phrase
from holdfast.core.yaml_values import from_yaml, read_yaml
from holdfast.methods.optimizers import OPTIMIZERS, SCHEDULES
from holdfast.methods.registry import check_methods
from holdfast.models.adapters.adapter import LOW_RANK
from holdfast.recipe import Recipe, as_settings, known_keys, override
from holdfast.recipe.recipe import parse, resolve_paths
from holdfast.recipe.values import NUMBER
from holdfast.search.space import Dimension, OnlyWhere, Space, ordered, plain, same, word

WORDS = ("range", "choices", "log", "step")
MOST_CHOICES = 1000
PART = "search"
EXAMPLES = "{range: [1e-5, 5e-4], log: true}, {range: [1, 8], step: 1} or {choices: [a, b]}"
_ROWS = (
    "decides which rows are learned from and judge, so that trials of it cannot be compared",
    "Train a run for each and ask `holdfast compare`.",
)
_MEASURE = (
    "decides how a trial is measured, and trials are compared by one measure",
    "Set one value.",
)
_MACHINE = ("changes how fast a trial runs, not what it learns", "Set one value, or leave it out.")
_SAID = ("says what is done beside the training", "Set one value.")
# By the beginning of a key: why it is not searched, and what to do.
REFUSED: Mapping[str, tuple[str, str]] = {
    "data.": _ROWS,
    "treat": _ROWS,
    "seed": (
        "is chance: the best of several seeds is luck, not a better setting",
        "`holdfast cv --repeats` shows how much chance moves the score.",
    ),
    "task": ("is what is learned", "Set one task."),
    "model.name": (
        "is the model, which is chosen by other means",
        "`holdfast choose SOURCE --models A,B` compares models.",
    ),
    "model.revision": ("is the model", "`holdfast choose SOURCE --models A,B` compares models."),
    "model.trust_remote_code": ("is a question of trust", "Set one value."),
    "train.metric": _MEASURE,
    "train.keep": _MEASURE,
    "train.folds": _MEASURE,
    "train.evaluations": _MEASURE,
    "train.max_minutes": _MEASURE,
    "train.threads": _MACHINE,
    "train.precision": _MACHINE,
    "train.matmul": _MACHINE,
    "train.cache_frozen": _MACHINE,
    "train.checkpoint_activations": _MACHINE,
    "generate.": _SAID,
    "control.": _MEASURE,
    "probes.": _SAID,
    "audit.": _SAID,
    "alert.": _SAID,
    "track.": _SAID,
}
FREE = ("methods", "enrich")
KIND = "model.adapter.kind"
# Keys whose values are names of a registry.
NAMED: Mapping[str, Mapping[str, Any]] = {
    "train.optimizer": OPTIMIZERS,
    "train.schedule": SCHEDULES,
}
# What a kind of adapter has of its own.
OF_ADAPTERS = {
    "model.adapter.rank": (*LOW_RANK, "prompt"),
    "model.adapter.alpha": LOW_RANK,
    "model.adapter.dropout": LOW_RANK,
    "model.adapter.targets": (*LOW_RANK, "ia3"),
    "model.adapter.rate_ratio": ("lora+",),
}


def read_asked(path: Path) -> tuple[Recipe, dict[str, Any], Any]:
    """A recipe of a file, the ranges that were in it by their keys, and its part ``search``."""
    found = read_yaml(path)
    if not isinstance(found, dict):
        found = {} if found is None else found
        return parse(found, str(path)), {}, None
    left, ranges = without_ranges(found)
    said = left.pop(PART, None)
    recipe = resolve_paths(parse(left, str(path)), Path(os.path.realpath(path)).parent)
    return recipe, ranges, said


def without_ranges(
    tree: Mapping[str, object], prefix: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tables without those values that are ranges or choices, and these by their dotted
    keys. The part ``search`` is left as it is."""
    left: dict[Any, Any] = {}
    ranges: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if is_range(value) and name != PART:
            ranges[name] = value
        elif isinstance(value, dict) and name != PART:
            left[key], inside = without_ranges(value, f"{name}.")
            ranges |= inside
        else:
            left[key] = value
    return left, ranges


def is_range(value: object) -> bool:
    """Whether a value is meant as several."""
    return isinstance(value, dict) and ("range" in value or "choices" in value)


def split_settings(
    settings: Mapping[str, object] | Sequence[str],
) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
    """``--set`` strings: those of the recipe, the ranges by their keys, and what is said of the
    search (``search.trials=8``; ``search=capacity`` stands under ``""``)."""
    left: list[str] = []
    ranges: dict[str, Any] = {}
    said: dict[str, Any] = {}
    for setting in as_settings(settings):
        name, equals, text = setting.partition("=")
        key = name.strip()
        value: Any = text if equals else None
        with contextlib.suppress(yaml.YAMLError):
            value = from_yaml(text) if equals else None
        if key == PART or key.startswith(f"{PART}."):
            said[key.removeprefix(PART).removeprefix(".")] = value
        elif is_range(value):
            ranges[key] = value
        else:
            left.append(setting)
            # A value that is said later wins over a range that was said before.
            ranges.pop(key, None)
    return left, ranges, said


def space_of(ranges: Mapping[str, Any], recipe: Recipe) -> Space:
    """The space that a person wrote, checked against the recipe that it belongs to.

    Raises ``RecipeError`` for a key that does not exist or cannot be searched, for a range that is
    none, and for values that the key cannot take.
    """
    found = [_dimension(key, value) for key, value in ranges.items()]
    known = {one.key: one for one in found}
    dimensions = ordered([_conditioned(one, known) for one in found])
    for one in dimensions:
        _check_values(one, recipe)
    return Space(dimensions)


def _dimension(key: str, table: Mapping[str, Any]) -> Dimension:
    _check_key(key)
    where = f"search space: {key}"
    for name in table:
        if name not in WORDS:
            raise RecipeError(where, "names an unknown word", name, suggest_name(str(name), WORDS))
    if "choices" in table:
        choices = table["choices"]
        more = [name for name in table if name != "choices"]
        if more:
            raise RecipeError(where, f"has choices and {more[0]} too", None, f"Write {EXAMPLES}.")
        if not isinstance(choices, (list, tuple)) or len(choices) < 2:
            rule = "needs a list of at least two values"
            raise RecipeError(where, rule, choices, f"Write {EXAMPLES}.")
        if len(choices) > MOST_CHOICES:
            rule = f"has {count_phrase(len(choices), 'choice')}, more than {MOST_CHOICES:,}"
            raise RecipeError(where, rule, None, "Give a range.")
        if key.partition(".")[0] not in FREE:
            choices = [float(one) if _is_number(one) else one for one in choices]
        for place, one in enumerate(choices):
            if any(same(one, other) for other in choices[:place]):
                raise RecipeError(where, "names a value twice", one, "Name each value once.")
        return Dimension(key, "choice", choices=tuple(choices))
    return _range(where, key, table)


def _check_key(key: str) -> None:
    for beginning, (rule, remedy) in REFUSED.items():
        if key == beginning or key.startswith(f"{beginning.removesuffix('.')}."):
            raise RecipeError(f"search space: {key}", rule, None, remedy)
    free = key.partition(".")[0] in FREE and "." in key
    known = known_keys()
    if not free and key not in known:
        inside = [one for one in known if one.startswith(f"{key}.")]
        if inside:
            rule = "is a part of several settings"
            raise RecipeError(f"search space: {key}", rule, None, f"Search one: {inside[0]}.")
        raise RecipeError("search space", "names an unknown key", key, suggest_name(key, known))


def _range(where: str, key: str, table: Mapping[str, Any]) -> Dimension:
    ends = table["range"]
    if not isinstance(ends, (list, tuple)) or len(ends) != 2:
        raise RecipeError(where, "needs a range of two numbers", ends, f"Write {EXAMPLES}.")
    low, high = (_end(where, end) for end in ends)
    log, step = table.get("log", False), table.get("step")
    if not isinstance(log, bool):
        raise RecipeError(where, "has a log that is neither true nor false", log, "Set log: true.")
    if not low < high:
        rule = "has a range whose end is not above its beginning"
        raise RecipeError(where, rule, list(ends), f"Write {EXAMPLES}.")
    if log and low <= 0:
        rule = "has a range over the logarithm that does not begin above 0"
        raise RecipeError(where, rule, low, "Begin above 0, or leave log out.")
    if step is not None:
        step = _end(where, step)
        if log or not 0 < step <= high - low:
            rule = "has steps over the logarithm" if log else "has a step that does not fit in it"
            raise RecipeError(where, rule, step, f"Write {EXAMPLES}.")
    whole = all(float(one).is_integer() for one in (low, high, step or 1)) and (
        step is not None or _takes_whole(key)
    )
    if _takes_whole(key) and not whole:
        raise RecipeError(where, "takes whole numbers alone", list(ends), f"Write {EXAMPLES}.")
    if whole and not log:
        step = step or 1
    return Dimension(key, "whole" if whole else "number", low, high, step, log)


def _takes_whole(key: str) -> bool:
    """Whether a key of a recipe is a whole number and nothing else."""
    from holdfast.recipe.parts import accepted_types

    part: Any = Recipe
    *path, last = key.split(".")
    if path and path[0] in FREE:
        from holdfast.methods.registry import all_methods

        known = all_methods()
        if path[0] != "methods" or len(path) != 2 or path[1] not in known:
            return False
        fields = getattr(known[path[1]].settings, "__dataclass_fields__", {})
        bounds = fields[last].metadata.get("bounds") if last in fields else None
        return bool(bounds is not None and bounds.whole)
    for name in path:
        part = part.model_fields[name].annotation
    return accepted_types(part, last) == {int}


def _is_number(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and NUMBER.fullmatch(value) is not None


def _end(where: str, value: object) -> float:
    """A number; YAML 1.1 takes ``1e-5`` for a word."""
    if _is_number(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise RecipeError(where, "needs numbers", value, f"Write {EXAMPLES}.")
    return value


def _conditioned(one: Dimension, known: Mapping[str, Dimension]) -> Dimension:
    """With the condition under which it has an effect, where another key of the space decides."""
    first, _, rest = one.key.partition(".")
    owner = f"{first}.{rest.partition('.')[0]}"
    if one.key in OF_ADAPTERS and KIND in known:
        fits = tuple(v for v in known[KIND].choices if v in OF_ADAPTERS[one.key])
        return replace(one, when=OnlyWhere(KIND, fits))
    if first in FREE and owner != one.key and owner in known:
        on = tuple(value for value in known[owner].choices if value is not False)
        return replace(one, when=OnlyWhere(owner, on))
    return one


def _check_values(one: Dimension, recipe: Recipe) -> None:
    """Hold both ends, or every choice, against what the key may be."""
    if one.when is not None and not one.when.values:
        rule = f"has an effect {one.when}, which is never so"
        raise RecipeError(f"search space: {one.key}", rule, None, "Leave it out.")
    beside = {one.when.key: one.when.values[0]} if one.when is not None else {}
    values: tuple[Any, ...] = one.choices
    if one.kind != "choice":
        number = int if one.kind == "whole" else float
        values = (number(one.low), number(one.high))
    for value in values:
        try:
            made = override(recipe, as_settings({**beside, one.key: value}))
            check_methods(made.methods)
            check_enrich(made.enrich)
            if one.key in NAMED:
                NAMED[one.key][str(value)]
        except RecipeError as error:
            given = error.value if not isinstance(error.value, Mapping) else None
            said, remedy = error.rule, error.remedy
            if one.key in OF_ADAPTERS and KIND not in beside and recipe.model.adapter.kind is None:
                remedy = f"Set {KIND}=lora, or search it: {{choices: [null, lora]}}."
            given = word(value) if given is None else given
            raise RecipeError(f"search space: {one.key}", said, given, remedy) from None


def key_of(settings: Mapping[str, object]) -> str:
    """A short name of settings that no other settings have."""
    return hashlib.blake2b(plain(dict(settings)).encode(), digest_size=8).hexdigest()
